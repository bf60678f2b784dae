"""Whole hidden units go: the quarter that contributes least between two linear layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from treegym.optimize.graph import rewrite, single_use
from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy

__all__ = ["Strategy", "shrink"]

SHARE = 0.25
_ELEMENTWISE_MODULES = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Dropout, nn.Identity)
_ELEMENTWISE = {torch.relu, nn.functional.relu, nn.functional.gelu, nn.functional.silu, torch.tanh, torch.sigmoid}


class Strategy(HybridOptimizationStrategy):
    """Removes hidden units of small weight norm (rows of the first layer times columns of the second)."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        nothing = "no two linear layers with only activations between them"
        return rewrite(module, sample, _shrink_pairs, nothing=nothing, exact=False)


def _shrink_pairs(graph: fx.GraphModule, args: tuple[Any, ...]) -> int:
    used = [node.target for node in graph.graph.nodes if node.op == "call_module"]

    def layer_of(node: Any) -> nn.Linear | None:
        if not isinstance(node, fx.Node) or node.op != "call_module" or used.count(node.target) != 1:
            return None
        layer = graph.get_submodule(str(node.target))
        return layer if type(layer) is nn.Linear else None

    shrunk = 0
    for node in graph.graph.nodes:
        second = layer_of(node)
        before: Any = node.args[0] if node.args else None
        if second is None:
            continue
        while single_use(before) and _elementwise(graph, before):
            before = before.args[0]
        first = layer_of(before)
        if first is not None and single_use(before) and first.out_features >= 8:
            shrink(first, second)
            shrunk += 1
    return shrunk


def _elementwise(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(graph.get_submodule(str(node.target)), _ELEMENTWISE_MODULES)
    return node.op == "call_function" and node.target in _ELEMENTWISE


def shrink(first: nn.Linear, second: nn.Linear, share: float = SHARE) -> None:
    """Drops hidden units between two linear layers, in place."""
    importance = first.weight.norm(dim=1) * second.weight.norm(dim=0)
    keep = importance.topk(max(1, round(len(importance) * (1 - share)))).indices.sort().values
    first.weight = nn.Parameter(first.weight.data[keep], requires_grad=False)
    if first.bias is not None:
        first.bias = nn.Parameter(first.bias.data[keep], requires_grad=False)
    second.weight = nn.Parameter(second.weight.data[:, keep].contiguous(), requires_grad=False)
    first.out_features = second.in_features = len(keep)
