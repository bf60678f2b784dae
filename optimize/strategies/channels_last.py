"""Convolutions run on channels-last tensors, which vectorise over channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable, map_tensors

__all__ = ["ChannelsLast", "Strategy"]


class ChannelsLast(nn.Module):
    """Hands four-dimensional inputs on in channels-last memory format."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*map_tensors(args, _reorder), **map_tensors(kwargs, _reorder))


def _reorder(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 and x.is_floating_point() else x


class Strategy(HybridOptimizationStrategy):
    """Puts weights and inputs of two-dimensional convolutions into channels-last format."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        if not any(isinstance(layer, nn.Conv2d) for layer in module.modules()):
            raise NotApplicable("no two-dimensional convolution")
        return ChannelsLast(module.to(memory_format=torch.channels_last))
