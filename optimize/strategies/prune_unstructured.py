"""The smallest fifth of every linear and convolution weight is set to zero (dense kernels gain nothing from it)."""

from __future__ import annotations

import torch
from torch import nn

from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable

__all__ = ["Strategy"]

SHARE = 0.2


class Strategy(HybridOptimizationStrategy):
    """Magnitude pruning, layer by layer."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
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
