"""Linear layers in bf16; norms, softmax and the residual stream stay in fp32, which keeps the error small."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable, linears, replace

__all__ = ["BF16Linear", "Strategy"]


class BF16Linear(nn.Module):
    """A linear layer with bf16 weights that takes and gives the caller's dtype."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = nn.Parameter(layer.weight.data.bfloat16(), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.data.bfloat16(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.bfloat16(), self.weight, self.bias).to(x.dtype)


class Strategy(HybridOptimizationStrategy):
    """Replaces float32 linear layers by bf16 ones."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        layers = [(name, layer) for name, layer in linears(module) if layer.weight.dtype == torch.float32]
        if not layers:
            raise NotApplicable("no float32 linear layer")
        if layers == [("", module)]:
            return BF16Linear(layers[0][1])
        for name, layer in layers:
            replace(module, name, BF16Linear(layer))
        return module
