"""Linear layers become two thin ones where the leading singular values hold nearly all of the weight."""

from __future__ import annotations

import torch
from torch import nn

from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable, linears, replace

__all__ = ["Strategy", "factorise"]

KEPT = 0.98  # share of the squared singular values that must be kept
SAVED = 0.8  # the two factors must have at most this share of the weights


class Strategy(HybridOptimizationStrategy):
    """Factorises by truncated singular value decomposition."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        changed = 0
        for name, layer in linears(module):
            thin = factorise(layer) if name and layer.weight.dtype == torch.float32 else None
            if thin is not None:
                replace(module, name, thin)
                changed += 1
        if not changed:
            raise NotApplicable(f"no linear layer keeps {KEPT:.0%} of its energy in fewer weights")
        return module


def factorise(layer: nn.Linear) -> nn.Sequential | None:
    """Returns two linear layers of the smallest rank that keeps `KEPT`, or None if that saves too little."""
    u, s, vh = torch.linalg.svd(layer.weight.data, full_matrices=False)
    energy = s.square().cumsum(0)
    rank = int((energy < KEPT * energy[-1]).sum()) + 1
    rows, columns = layer.weight.shape
    if rank * (rows + columns) > SAVED * rows * columns:
        return None
    root = s[:rank].sqrt()
    inner = nn.Linear(columns, rank, bias=False)
    outer = nn.Linear(rank, rows, bias=layer.bias is not None)
    inner.weight = nn.Parameter(root[:, None] * vh[:rank], requires_grad=False)
    outer.weight = nn.Parameter(u[:, :rank] * root, requires_grad=False)
    if layer.bias is not None:
        outer.bias = layer.bias
    return nn.Sequential(inner, outer).eval()
