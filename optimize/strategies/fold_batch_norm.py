"""Batch norm in evaluation mode is a scale and a shift: both are folded into the layer before it."""

from __future__ import annotations

from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from treegym.optimize.graph import rewrite, single_use
from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable, replace

__all__ = ["Strategy", "fold"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Strategy(HybridOptimizationStrategy):
    """Folds batch norms into the convolution or linear layer they follow."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        nothing = "no batch norm right after a convolution or a linear layer"
        if not any(isinstance(layer, _NORMS) for layer in module.modules()):
            raise NotApplicable(nothing)
        return rewrite(module, sample, fold, nothing=nothing)


def fold(graph: fx.GraphModule, args: tuple[Any, ...]) -> int:
    """Folds every batch norm of a graph whose input is a convolution or linear layer that nothing else reads."""
    folded = 0
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not isinstance(graph.get_submodule(str(node.target)), _NORMS):
            continue
        norm, before = graph.get_submodule(str(node.target)), node.args[0]
        if not single_use(before) or before.op != "call_module" or norm.running_mean is None:
            continue
        layer = graph.get_submodule(str(before.target))
        if isinstance(layer, _CONVOLUTIONS):
            replace(graph, str(before.target), fuse_conv_bn_eval(layer, norm))
        elif type(layer) is nn.Linear and isinstance(norm, nn.BatchNorm1d):
            replace(graph, str(before.target), fuse_linear_bn_eval(layer, norm))
        else:
            continue
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
        folded += 1
    return folded
