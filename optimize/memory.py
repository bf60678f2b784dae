"""How much memory a module takes: what it keeps (parameters, buffers, packed weights) and what a call allocates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from treegym.optimize.strategies.base import map_tensors

__all__ = ["footprint", "peak_allocation"]


def footprint(module: nn.Module) -> int:
    """Returns the bytes of all parameters and buffers, shared storage counted once, packed weights included."""
    seen: set[int] = set()
    total = sum(_tensor_bytes(tensor, seen) for tensor in [*module.parameters(), *module.buffers()])
    for value in module.state_dict().values():
        if not isinstance(value, Tensor) or value.is_quantized:  # what parameters() and buffers() do not show
            total += _packed_bytes(value, seen)
    return total


def _tensor_bytes(tensor: Tensor, seen: set[int]) -> int:
    if hasattr(tensor, "__tensor_flatten__") and type(tensor) is not nn.Parameter:  # torchao's packed tensors
        names, _ = tensor.__tensor_flatten__()
        return sum(_tensor_bytes(getattr(tensor, name), seen) for name in names)
    pointer = tensor.untyped_storage().data_ptr() if not tensor.is_quantized else tensor.data_ptr()
    if pointer in seen or tensor.numel() == 0:
        return 0
    seen.add(pointer)
    size = tensor.numel() * tensor.element_size() if tensor.is_quantized else tensor.untyped_storage().nbytes()
    if tensor.is_quantized and tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        size += tensor.q_per_channel_scales().numel() * 4
    return int(size)


def _packed_bytes(value: Any, seen: set[int]) -> int:
    if isinstance(value, Tensor):
        return _tensor_bytes(value, seen)
    if isinstance(value, (tuple, list)):
        return sum(_packed_bytes(item, seen) for item in value)
    if isinstance(value, torch.ScriptObject):  # quantised LSTM cells keep their weights in one
        return _packed_bytes(value.__getstate__(), seen)
    return 0


def peak_allocation(module: nn.Module, inputs: tuple[Any, ...], earlier: tuple[Any, ...] | None = None) -> int:
    """Returns the most bytes that one call has allocated at once, as the allocator saw it.

    A call on `earlier` (None: on the same inputs) comes first: what it keeps, workspaces, is not part of every call.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    x = map_tensors(inputs, torch.clone)
    module(*map_tensors(inputs if earlier is None else earlier, torch.clone))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        module(*x)
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with (
        _quiet_stderr(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        output = module(*x)
    del output
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return int(peak)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """The profiler's native part writes notes to file descriptor 2; they are not for users."""
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
