"""Activations and residual sums write over their input where nothing else reads it."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from treegym.optimize.graph import rewrite, single_use
from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy

__all__ = ["Strategy"]

_INPLACE = {
    torch.relu: torch.relu_,
    nn.functional.relu: torch.relu_,
    torch.tanh: torch.tanh_,
    torch.sigmoid: torch.sigmoid_,
}
_FRESH_MODULES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
_FRESH_FUNCTIONS = {torch.matmul, torch.bmm, operator.matmul, nn.functional.linear, operator.add, torch.add}


class Strategy(HybridOptimizationStrategy):
    """Makes activations and sums in place, never on an input of the module or on a view of something kept."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        return rewrite(module, sample, _overwrite, nothing="no activation or sum whose input is read by nothing else")


def _overwrite(graph: fx.GraphModule, args: tuple[Any, ...]) -> int:
    changed = 0
    for node in list(graph.graph.nodes):
        before = node.args[0] if node.args else None
        if node.op == "call_module":
            layer = graph.get_submodule(str(node.target))
            if getattr(layer, "inplace", None) is False and not isinstance(layer, nn.Dropout) and _fresh(graph, before):
                layer.inplace = True
                changed += 1
        elif node.op == "call_function" and node.target in _INPLACE and _fresh(graph, before):
            node.target = _INPLACE[node.target]
            node.kwargs = {}
            changed += 1
        elif node.op == "call_function" and node.target in (operator.add, torch.add) and not node.kwargs:
            left, right = node.args
            if _fresh(graph, right) and isinstance(left, fx.Node):  # x + f(x): the branch's result is overwritten
                left, right = right, left
            elif not (_fresh(graph, left) and isinstance(right, fx.Node)):
                continue
            node.op, node.target, node.args = "call_method", "add_", (left, right)
            changed += 1
    return changed


def _fresh(graph: fx.GraphModule, node: Any) -> bool:
    """Returns whether a node's value was newly made, and is read by one node only."""
    if not single_use(node):
        return False
    if node.op == "call_module":
        return isinstance(graph.get_submodule(str(node.target)), _FRESH_MODULES)
    return node.op == "call_function" and node.target in _FRESH_FUNCTIONS
