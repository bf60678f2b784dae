"""A linear layer and the activation behind it in one oneDNN kernel (CPU)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from treegym.optimize.graph import rewrite, single_use
from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable

__all__ = ["FusedLinear", "Strategy"]

_FUNCTIONS = {torch.relu: "relu", nn.functional.relu: "relu", nn.functional.gelu: "gelu", torch.tanh: "tanh"}
_MODULES = {nn.ReLU: "relu", nn.GELU: "gelu", nn.Tanh: "tanh", nn.SiLU: "swish"}


class FusedLinear(nn.Module):
    """``activation(x @ W^T + b)`` in one kernel."""

    def __init__(self, layer: nn.Linear, activation: str) -> None:
        super().__init__()
        self.weight, self.bias, self.activation = layer.weight, layer.bias, activation
        self.algorithm = "none" if activation == "gelu" else ""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.activation, [], self.algorithm)


class Strategy(HybridOptimizationStrategy):
    """Fuses linear layers with ReLU, GELU, tanh or SiLU."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            raise NotApplicable("this build of PyTorch has no fused linear kernel (oneDNN)")
        if any(parameter.device.type != "cpu" for parameter in module.parameters()):
            raise NotApplicable("the fused linear kernel is for CPUs")
        return rewrite(module, sample, _fuse, nothing="no linear layer directly followed by ReLU, GELU, tanh or SiLU")


def _fuse(graph: fx.GraphModule, args: tuple[Any, ...]) -> int:
    fused = 0
    used = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    for node in list(graph.graph.nodes):
        activation = _activation(graph, node)
        before: Any = node.args[0] if node.args else None
        if activation is None or not single_use(before) or before.op != "call_module":
            continue
        layer = graph.get_submodule(str(before.target))
        if type(layer) is not nn.Linear or used.count(before.target) != 1:
            continue
        name = f"fused_{fused}_" + str(before.target).replace(".", "_")
        graph.add_submodule(name, FusedLinear(layer, activation))
        with graph.graph.inserting_before(node):
            new = graph.graph.call_module(name, before.args)
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
        graph.graph.erase_node(before)
        fused += 1
    return fused


def _activation(graph: fx.GraphModule, node: fx.Node) -> str | None:
    if node.op == "call_module":
        layer = graph.get_submodule(str(node.target))
        exact = not isinstance(layer, nn.GELU) or layer.approximate == "none"
        return _MODULES.get(type(layer)) if exact else None
    if node.op == "call_function" and not node.kwargs.get("approximate"):
        return _FUNCTIONS.get(node.target)
    return None
