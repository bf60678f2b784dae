"""The whole module runs under `torch.inference_mode`: no version counters, no autograd bookkeeping."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy

__all__ = ["InferenceMode", "Strategy"]


class InferenceMode(nn.Module):
    """Calls a module in inference mode."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode():
            return self.module(*args, **kwargs)


class Strategy(HybridOptimizationStrategy):
    """Wraps the module; parameters stop asking for gradients."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        return InferenceMode(module.requires_grad_(False))
