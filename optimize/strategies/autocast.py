"""Products in bf16, everything between them in float32, by PyTorch's own autocast: for layers that `bf16_linear` cannot
replace (PyTorch's attention and transformer layers, convolutions)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable, map_tensors

__all__ = ["Autocast", "Strategy"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)


class Autocast(nn.Module):
    """Runs a module under autocast and gives its outputs in float32."""

    def __init__(self, module: nn.Module, device: str) -> None:
        super().__init__()
        self.module, self.device = module, device

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device, torch.bfloat16):
            out = self.module(*args, **kwargs)
        return map_tensors(out, _widened)


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


class Strategy(HybridOptimizationStrategy):
    """Casts the weights of products once, and runs the module under autocast."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        changed = 0
        for layer in module.modules():
            if isinstance(layer, _LAYERS):
                for parameter in layer.parameters(recurse=False):
                    if parameter.dtype == torch.float32:  # autocast would cast it at every call
                        parameter.data = parameter.data.bfloat16()
                        changed += 1
        if not changed:
            raise NotApplicable("no float32 linear, convolution or attention layer")
        return Autocast(module, next(module.parameters()).device.type)
