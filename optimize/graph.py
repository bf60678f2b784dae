"""Rewriting modules as graphs: trace what can be traced, change it, keep the change only if the outputs agree.

A user's module is rarely traceable as a whole. So tracing goes from the root downwards: what cannot be traced, or
does not give the same outputs after the rewrite, is left alone and its children are tried one by one.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from treegym.optimize.strategies.base import Arguments, NotApplicable, call, map_tensors, replace, tensors_of

__all__ = ["Calls", "capture", "close", "rewrite", "single_use", "trace"]

Calls = dict[str, tuple[tuple[Any, ...], dict[str, Any]]]  # submodule name: the arguments of its first call
Transform = Callable[[fx.GraphModule, "tuple[Any, ...]"], int]  # rewrites in place, returns how many places it changed
TOLERANCE = 1e-3  # relative; a rewrite is meant to be exact, and float32 sums reorder


def capture(module: nn.Module, sample: Arguments) -> Calls:
    """Runs the module once and returns the arguments with which each submodule was first called."""
    calls: Calls = {}
    handles = []

    def keep(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if name not in calls:
                calls[name] = map_tensors(args, torch.clone), map_tensors(kwargs, torch.clone)

        return hook

    for name, child in module.named_modules():
        if not name or not type(child).__module__.startswith("torch.nn"):
            handles.append(child.register_forward_pre_hook(keep(name), with_kwargs=True))
    try:
        with torch.no_grad():
            call(module, map_tensors(sample, torch.clone))
    finally:
        for handle in handles:
            handle.remove()
    return calls


class _Tracer(fx.Tracer):
    """Buffers are looked up at run time like parameters, so that masks can be sliced by traced lengths."""

    proxy_buffer_attributes = True


def trace(module: nn.Module, kwargs: dict[str, Any], args: tuple[Any, ...]) -> fx.GraphModule | None:
    """Returns the module as a graph, with constant arguments (None, flags) built in; None if it cannot be traced."""
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        bound.apply_defaults()
        constant = {
            name: value for name, value in bound.arguments.items() if value is None or isinstance(value, (bool, str))
        }
        if any(isinstance(value, (dict,)) and value for value in bound.arguments.values()):
            return None
        tracer = _Tracer(autowrap_modules=(math,))
        graph = tracer.trace(module, concrete_args=constant or None)
        return fx.GraphModule(tracer.root, graph, type(module).__name__)
    except Exception:  # noqa: BLE001 - tracing runs the user's code on proxies: anything may come, and means "not traceable"
        return None


def close(a: Any, b: Any, tolerance: float = TOLERANCE) -> bool:
    """Returns whether two outputs have the same tensors up to a relative error."""
    ours, theirs = tensors_of(a), tensors_of(b)
    if len(ours) != len(theirs):
        return False
    for x, y in zip(ours, theirs, strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            return False
        if not x.is_floating_point():
            if not torch.equal(x, y):
                return False
        elif not float((x - y).norm()) <= tolerance * float(x.norm()) + 1e-6:
            return False
    return True


def rewrite(
    module: nn.Module, sample: Arguments, transform: Transform, *, nothing: str, exact: bool = True
) -> nn.Module:
    """Applies a graph transform wherever it works and returns the module; raises `NotApplicable` if nowhere.

    `exact` rewrites are kept only where the outputs agree; others only where the outputs' shapes do.
    """
    calls = capture(module, sample)
    module, changed = _rewrite(module, "", calls, transform, TOLERANCE if exact else float("inf"))
    if not changed:
        raise NotApplicable(nothing)
    return module


def _rewrite(
    module: nn.Module, prefix: str, calls: Calls, transform: Transform, tolerance: float
) -> tuple[nn.Module, int]:
    call = calls.get(prefix)
    if call is not None:
        new, changed = _attempt(module, call[0], call[1], transform, tolerance)
        if changed:
            return new, changed
    total = 0
    for name, child in list(module.named_children()):
        if not list(child.children()):
            continue
        new, changed = _rewrite(child, f"{prefix}.{name}" if prefix else name, calls, transform, tolerance)
        if changed:
            replace(module, name, new)
            total += changed
    return module, total


def _attempt(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], transform: Transform, tolerance: float
) -> tuple[nn.Module, int]:
    """Returns the rewritten module, or the module itself and 0 when tracing, rewriting or the check fails."""
    graph = trace(copy.deepcopy(module), kwargs, args)
    if graph is None:
        return module, 0
    try:
        with torch.no_grad():
            expected = module(*map_tensors(args, torch.clone), **map_tensors(kwargs, torch.clone))
            changed = transform(graph, args)
            if not changed:
                return module, 0
            graph.graph.eliminate_dead_code()
            graph.graph.lint()
            graph.recompile()
            graph.delete_all_unused_submodules()
            got = graph(*map_tensors(args, torch.clone), **map_tensors(kwargs, torch.clone))
            again = graph(*map_tensors(args, torch.clone), **map_tensors(kwargs, torch.clone))
    except Exception:  # noqa: BLE001 - a rewrite that does not run is not kept; the module stays as it was
        return module, 0
    if not close(expected, got, tolerance) or not close(expected, again, tolerance):
        return module, 0
    return graph.eval(), changed


def single_use(node: Any) -> bool:
    """Returns whether exactly one other node reads this one."""
    return isinstance(node, fx.Node) and len(node.users) == 1
