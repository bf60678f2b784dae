"""The whole module in a half-precision format, with inputs and outputs cast at its border."""

from __future__ import annotations

import torch
from torch import nn

from treegym.optimize.strategies.base import Arguments, Cast, HybridOptimizationStrategy, NotApplicable

__all__ = ["BF16", "FP16"]


class _Half(HybridOptimizationStrategy):
    """Casts parameters, buffers and inputs."""

    dtype: torch.dtype

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        dtypes = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
        if dtypes != {torch.float32}:
            raise NotApplicable("the module's parameters are not all float32")
        return Cast(module.to(self.dtype), self.dtype, torch.float32)


class BF16(_Half):
    """Eight bits of exponent, as float32 has: no overflow, three decimal digits."""

    dtype = torch.bfloat16


class FP16(_Half):
    """Five bits of exponent: numbers beyond 65,504 overflow, four decimal digits."""

    dtype = torch.float16
