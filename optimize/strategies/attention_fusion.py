"""Hand-written attention (scores, softmax, mix) becomes one call of the fused attention kernel.

On a GPU the fused kernel is flash attention where the device has it; on a CPU it is blocked and never stores the
scores. Hugging Face models are switched to it by their own setting.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from treegym.optimize.graph import rewrite
from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable

__all__ = ["Strategy", "fuse_attention"]

_MATMUL = {torch.matmul, torch.bmm, operator.matmul}
_SOFTMAX = {torch.softmax, nn.functional.softmax}
_EINSUM = torch.einsum
_PASS_METHODS = {"contiguous", "clone"}


class Strategy(HybridOptimizationStrategy):
    """Replaces explicit attention by `scaled_dot_product_attention`."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        setting = getattr(module, "set_attn_implementation", None)
        current = getattr(getattr(module, "config", None), "_attn_implementation", None)
        if setting is not None and current == "eager":
            setting("sdpa")
            return module
        if setting is not None and current is not None:
            raise NotApplicable(f"the model's attention is already {current!r}")
        return rewrite(module, sample, fuse_attention, nothing="no hand-written attention (a softmax between products)")


def fuse_attention(graph: fx.GraphModule, args: tuple[Any, ...]) -> int:
    """Rewrites every ``softmax(q @ k^T * scale + mask) @ v`` of a graph; returns how many there were."""
    changed = 0
    for node in list(graph.graph.nodes):
        if _is_softmax(graph, node) and _fuse_one(graph, node):
            changed += 1
    return changed


def _fuse_one(graph: fx.GraphModule, softmax: fx.Node) -> bool:
    mixed = _consumer(graph, softmax)
    if mixed is None:
        return False
    scores: Any = softmax.args[0]
    scale, mask, kind_of_mask = 1.0, None, ""
    traced_scales: list[tuple[Any, Any]] = []  # (operator, scalar node): scales computed from shapes
    while isinstance(scores, fx.Node) and _product_operands(scores, keys=True) is None:
        step = _score_step(scores)
        if step is None:
            return False
        kind, inner, value = step
        if kind == "scale":
            scale *= value
        elif kind in ("times", "over"):
            traced_scales.append((operator.mul if kind == "times" else operator.truediv, value))
        elif mask is None and scale == 1.0 and not traced_scales:  # a scale after the mask would scale the mask too
            mask, kind_of_mask = value, kind
        else:
            return False
        scores = inner
    operands = _product_operands(scores, keys=True)
    values = _product_operands(mixed, keys=False)
    if operands is None or values is None:
        return False
    (q, k, transposed), v = operands, values[1]
    with graph.graph.inserting_before(mixed):
        if transposed:
            k = graph.graph.call_method("transpose", (k, -2, -1))
        for operation, value in traced_scales:
            q = graph.graph.call_function(operation, (q, value))
        keywords: dict[str, Any] = {"scale": float(scale)}
        if mask is not None:
            if kind_of_mask == "fill":  # True where attention is forbidden; the kernel wants the opposite
                mask = graph.graph.call_function(torch.logical_not, (mask,))
            keywords["attn_mask"] = mask
        fused = graph.graph.call_function(nn.functional.scaled_dot_product_attention, (q, k, v), keywords)
    mixed.replace_all_uses_with(fused)
    return True


def _is_softmax(graph: fx.GraphModule, node: fx.Node) -> bool:
    dim: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    if node.op == "call_function" and node.target in _SOFTMAX:
        return dim in (-1, 3)
    if node.op == "call_method" and node.target == "softmax":
        return dim in (-1, 3)
    if node.op == "call_module":
        layer = graph.get_submodule(str(node.target))
        return isinstance(layer, nn.Softmax) and layer.dim in (-1, 3)
    return False


def _consumer(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Returns the product that reads the attention weights, looking through dropout that does nothing."""
    while len(node.users) == 1:
        (user,) = node.users
        dropout = (
            (user.op == "call_module" and isinstance(graph.get_submodule(str(user.target)), (nn.Dropout, nn.Identity)))
            or (user.op == "call_function" and user.target is nn.functional.dropout)
            or (user.op == "call_method" and user.target in _PASS_METHODS)
        )
        if not dropout:
            operands = _product_operands(user, keys=False)
            return user if operands is not None and operands[0] is node else None
        node = user
    return None


def _score_step(node: fx.Node) -> tuple[str, Any, Any] | None:
    """Takes one operation off the scores: ``(kind, what it was applied to, its value)``."""
    target, args = node.target, node.args
    function = node.op == "call_function"
    method = node.op == "call_method"
    if (function and target in (operator.mul, torch.mul)) or (method and target == "mul"):
        for scores, factor in ((args[0], args[1]), (args[1], args[0])):
            if isinstance(factor, (int, float)):
                return "scale", scores, float(factor)
            if _scalar(factor):
                return "times", scores, factor
        return None
    if (function and target in (operator.truediv, torch.div)) or (method and target == "div"):
        if isinstance(args[1], (int, float)):
            return "scale", args[0], 1.0 / float(args[1])
        return ("over", args[0], args[1]) if _scalar(args[1]) else None
    if (function and target in (operator.add, torch.add)) or (method and target == "add"):
        left, right = args[0], args[1]
        if isinstance(left, fx.Node) and isinstance(right, fx.Node):
            return "add", left, right
        return None
    if method and target in ("masked_fill", "masked_fill_") and _very_negative(args[2]):
        return "fill", args[0], args[1]
    if function and target is torch.where and _very_negative(args[2]):
        return "keep", args[1], args[0]
    return None


def _very_negative(value: Any) -> bool:
    return isinstance(value, (int, float)) and value <= -1e4


def _product_operands(node: Any, *, keys: bool) -> tuple[Any, Any, bool] | None:
    """Returns the operands of a batched product, and whether the second must be transposed to hold keys in rows."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "call_function" and node.target is _EINSUM and len(node.args) == 3:
        return _einsum_operands(node, keys=keys)
    product = (node.op == "call_function" and node.target in _MATMUL) or (
        node.op == "call_method" and node.target in ("matmul", "bmm", "__matmul__")
    )
    if not product:
        return None
    left, right = node.args[0], node.args[1]
    if not keys:
        return left, right, False
    swapped = isinstance(right, fx.Node) and right.op == "call_method" and right.target == "transpose"
    if swapped and set(right.args[1:]) in ({-1, -2}, {2, 3}):
        return left, right.args[0], False
    return left, right, True


def _einsum_operands(node: fx.Node, *, keys: bool) -> tuple[Any, Any, bool] | None:
    equation = str(node.args[0]).replace(" ", "")
    left, _, rest = equation.partition(",")
    right, _, out = rest.partition("->")
    if len(left) < 3 or not len(left) == len(right) == len(out) or not left[:-2] == right[:-2] == out[:-2]:
        return None
    (i, d), (j, e), (a, b) = tuple(left[-2:]), tuple(right[-2:]), tuple(out[-2:])
    good = (d == e and (a, b) == (i, j)) if keys else (d == j and (a, b) == (i, e))
    return (node.args[1], node.args[2], False) if good else None


def _scalar(value: Any) -> bool:
    """Returns whether a traced value is a Python number: arithmetic on the sizes of tensors."""
    if isinstance(value, (int, float)):
        return True
    if not isinstance(value, fx.Node):
        return False
    if value.op == "call_method":
        return value.target == "size" and len(value.args) == 2
    if value.op != "call_function":
        return False
    if value.target is operator.getitem:
        shape = value.args[0]
        return isinstance(shape, fx.Node) and (
            (shape.op == "call_function" and shape.target is getattr and shape.args[1] == "shape")
            or (shape.op == "call_method" and shape.target == "size" and len(shape.args) == 1)
        )
    return (getattr(value.target, "__module__", "") in ("math", "_operator")) and all(map(_scalar, value.args))
