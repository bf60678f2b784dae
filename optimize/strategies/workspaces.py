"""Linear layers whose result only feeds an activation write it into a buffer that is kept between calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from treegym.optimize.graph import rewrite, single_use
from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy

__all__ = ["Strategy", "WorkspaceLinear"]

_READERS = {torch.relu, nn.functional.relu, nn.functional.gelu, nn.functional.silu, torch.tanh, torch.sigmoid}
_READER_MODULES = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)


class WorkspaceLinear(nn.Module):
    """A linear layer that writes into its own buffer; not for use from several threads at once."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.workspace: Tensor
        self.register_buffer("workspace", torch.empty(0, dtype=layer.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # a kept buffer cannot carry gradients
            return nn.functional.linear(x, self.weight, self.bias)
        flat = x.reshape(-1, x.shape[-1])
        rows, width = flat.shape[0], self.weight.shape[0]
        if self.workspace.numel() < rows * width or self.workspace.device != x.device:
            with torch.inference_mode(False):  # it must be of use outside inference mode, too
                self.workspace = torch.empty(rows * width, dtype=x.dtype, device=x.device)
        out = self.workspace[: rows * width].view(rows, width)
        if self.bias is None:
            torch.mm(flat, self.weight.t(), out=out)
        else:
            torch.addmm(self.bias, flat, self.weight.t(), out=out)
        return out.view(*x.shape[:-1], width)


class Strategy(HybridOptimizationStrategy):
    """Gives linear layers a preallocated output buffer where the result cannot outlive the call."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        return rewrite(module, sample, _preallocate, nothing="no linear layer whose only reader is an activation")


def _preallocate(graph: fx.GraphModule, args: tuple[Any, ...]) -> int:
    changed = 0
    used = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not single_use(node) or used.count(node.target) != 1:
            continue
        layer = graph.get_submodule(str(node.target))
        (reader,) = node.users
        reads = (reader.op == "call_function" and reader.target in _READERS and not reader.kwargs.get("inplace")) or (
            reader.op == "call_module"
            and isinstance(graph.get_submodule(str(reader.target)), _READER_MODULES)
            and not getattr(graph.get_submodule(str(reader.target)), "inplace", False)
        )
        if type(layer) is nn.Linear and reads:
            name = f"workspace_{changed}_" + str(node.target).replace(".", "_")
            graph.add_submodule(name, WorkspaceLinear(layer))
            node.target = name
            changed += 1
    return changed
