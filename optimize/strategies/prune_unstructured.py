"""The smallest fifth of every linear and convolution weight is set to zero (dense kernels gain nothing from it)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from treegym.optimize.strategies.base import HybridOptimizationStrategy, NotApplicable

__all__ = ["Strategy"]

SHARE = 0.2


class Strategy(HybridOptimizationStrategy):
    """Magnitude pruning, layer by layer."""

    def apply(self, module: nn.Module, sample: tuple[Any, ...]) -> nn.Module:
        layers = [
            layer for layer in module.modules() if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
        ]
        if not layers:
            raise NotApplicable("no linear or convolution layer")
        with torch.no_grad():
            for layer in layers:
                size = layer.weight.abs()
                threshold = size.flatten().kthvalue(max(1, int(SHARE * size.numel()))).values
                layer.weight.mul_(size > threshold)
        return module
