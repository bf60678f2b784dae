"""The whole module in bf16, with inputs and outputs cast at its border."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from treegym.optimize.strategies.base import Cast, HybridOptimizationStrategy, NotApplicable

__all__ = ["Strategy"]


class Strategy(HybridOptimizationStrategy):
    """Casts parameters, buffers and inputs."""

    def apply(self, module: nn.Module, sample: tuple[Any, ...]) -> nn.Module:
        dtypes = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
        if dtypes != {torch.float32}:
            raise NotApplicable("the module's parameters are not all float32")
        return Cast(module.to(torch.bfloat16), torch.bfloat16, torch.float32)
