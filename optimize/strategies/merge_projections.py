"""Linear layers that read the same input (queries, keys and values; gate and up) become one product and a split."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from treegym.optimize.graph import rewrite
from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy

__all__ = ["Strategy", "merge_linears"]


class Strategy(HybridOptimizationStrategy):
    """Merges sibling linear layers."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        return rewrite(module, sample, merge_linears, nothing="no linear layers that read the same input")


def merge_linears(graph: fx.GraphModule, args: tuple[Any, ...]) -> int:
    """Merges every group of two or more plain linear layers with the same input; returns how many groups."""
    used = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    groups: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module" and used.count(node.target) == 1 and len(node.args) == 1 and not node.kwargs:
            layer = graph.get_submodule(str(node.target))
            if type(layer) is nn.Linear and isinstance(node.args[0], fx.Node):
                groups.setdefault(node.args[0], []).append(node)
    merged = 0
    for nodes in groups.values():
        layers = [graph.get_submodule(str(node.target)) for node in nodes]
        if len({(layer.bias is None, layer.weight.dtype) for layer in layers}) != 1 or len(nodes) < 2:
            continue
        name = f"merged_{merged}_" + "_".join(str(node.target).replace(".", "_") for node in nodes)[:80]
        graph.add_submodule(name, _stack(layers))
        sizes = [layer.out_features for layer in layers]
        with graph.graph.inserting_before(nodes[0]):
            whole = graph.graph.call_module(name, nodes[0].args)
            parts = graph.graph.call_method("split", (whole, sizes, -1))
            pieces = [graph.graph.call_function(_item, (parts, i)) for i in range(len(nodes))]
        for node, piece in zip(nodes, pieces, strict=True):
            node.replace_all_uses_with(piece)
            graph.graph.erase_node(node)
        merged += 1
    return merged


def _item(parts: tuple[torch.Tensor, ...], index: int) -> torch.Tensor:
    return parts[index]


def _stack(layers: list[nn.Module]) -> nn.Linear:
    """Returns one linear layer whose outputs are those of `layers` side by side."""
    weight = torch.cat([layer.weight.data for layer in layers])
    merged = nn.Linear(weight.shape[1], weight.shape[0], bias=layers[0].bias is not None, device="meta")
    merged.weight = nn.Parameter(weight, requires_grad=False)
    if layers[0].bias is not None:
        merged.bias = nn.Parameter(torch.cat([layer.bias.data for layer in layers]), requires_grad=False)
    return merged
