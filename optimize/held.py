"""Every tensor a module holds, wherever it keeps it: parameters, plain attributes, containers, closures, hooks.

What cannot be seen from here: global variables, and memory that belongs to C code and is not packed quantised weights.
"""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["held_tensors"]

_SKIPPED = ("torch.fx", "torch._dynamo", "torch._inductor", "torch._ops", "torch.jit", "logging", "threading")
_PLAIN = (
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    type,
    types.ModuleType,
    torch.dtype,
    torch.device,
    torch.Size,
)


def held_tensors(thing: Any) -> list[tuple[str, Tensor]]:
    """Returns every tensor that can be reached from a module (or from anything), each once, with its path.

    NumPy arrays come as tensors of the same memory; packed weights of quantised layers as the quantised tensors.
    """
    return list(_walk(thing, "", set()))


def _walk(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(thing, _PLAIN) or id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield path, thing
    elif isinstance(thing, np.ndarray):
        if thing.dtype.kind in "biuf" and thing.flags.writeable:
            yield path, torch.from_numpy(thing)
    else:
        for name, part in _parts(thing):
            yield from _walk(part, f"{path}.{name}" if path else name, seen)


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yields what a thing holds, by name, in an order that does not change."""
    if isinstance(thing, nn.Module):
        for group in (thing._parameters, thing._buffers, thing._modules):
            yield from group.items()
        inner = ("_parameters", "_buffers", "_modules")
        yield from ((name, part) for name, part in vars(thing).items() if name not in inner)
    elif isinstance(thing, Mapping):
        yield from ((str(name), part) for name, part in thing.items())
    elif isinstance(thing, list | tuple | deque):
        yield from ((str(i), part) for i, part in enumerate(thing))
    elif isinstance(thing, torch.ScriptObject):
        yield from _unpacked(thing)
    elif isinstance(thing, types.FunctionType):
        for i, cell in enumerate(thing.__closure__ or ()):
            try:
                yield f"closure{i}", cell.cell_contents
            except ValueError:  # a variable that has no value yet
                continue
        yield "defaults", (thing.__defaults__, thing.__kwdefaults__)
    elif isinstance(thing, types.MethodType):
        yield from (("self", thing.__self__), ("function", thing.__func__))
    elif isinstance(thing, functools.partial):
        yield from (("function", thing.func), ("args", thing.args), ("keywords", thing.keywords))
    elif not type(thing).__module__.startswith(_SKIPPED):
        yield from getattr(thing, "__dict__", {}).items()
        for name in getattr(type(thing), "__slots__", ()):
            if hasattr(thing, name):
                yield name, getattr(thing, name)


def _unpacked(packed: torch.ScriptObject) -> Iterator[tuple[str, Any]]:
    """Yields the weights in a quantised layer's packed object, which PyTorch gives out as its pickled state."""
    try:
        yield "packed", packed.__getstate__()
    except RuntimeError:  # an object of another sort: it has no such state
        return
