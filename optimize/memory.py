"""How much memory a module takes: what it keeps (parameters, buffers, packed weights) and what a call allocates."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from treegym.optimize.held import held_tensors
from treegym.optimize.strategies.base import Arguments, call, map_tensors

__all__ = ["device_of", "footprint", "peak_allocation", "process_growth"]


def device_of(module: nn.Module) -> torch.device:
    """Returns where a module lives."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def footprint(module: nn.Module) -> int:
    """Returns the bytes of all tensors a module holds (see `held_tensors`), shared storage counted once.

    A back end's program counts by its size: the library keeps about as much.
    """
    seen: set[int] = set()
    tensors = sum(_tensor_bytes(tensor, seen) for _, tensor in held_tensors(module))
    return tensors + sum(int(getattr(part, "engine_bytes", 0)) for part in module.modules())


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


def peak_allocation(module: nn.Module, inputs: Arguments, earlier: Arguments | None = None) -> int:
    """Returns the most bytes that one call has allocated at once, as the allocator saw it.

    A call on `earlier` (None: on the same inputs) comes first: what it keeps, workspaces, is not part of every call.
    """
    device = device_of(module)
    x = map_tensors(inputs, torch.clone)
    call(module, map_tensors(inputs if earlier is None else earlier, torch.clone))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call(module, x)
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with (
        _quiet_stderr(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        output = call(module, x)
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


def process_growth(make: Callable[[], nn.Module], inputs: Callable[[], Arguments]) -> dict[str, int]:
    """Returns by how many bytes this process grows at most while a module is made ("load") and while it is run ("run").

    Empty where the system does not say (there is no /proc).
    """
    if not os.path.exists("/proc/self/clear_refs"):
        return {}
    before = _process_bytes("VmRSS")
    _forget_peak()
    module = make()
    load = _process_bytes("VmHWM") - before
    arguments = inputs()
    before = _process_bytes("VmRSS")
    _forget_peak()
    with torch.inference_mode():
        for _ in range(3):
            call(module, map_tensors(arguments, torch.clone))
    return {"load": max(0, load), "run": max(0, _process_bytes("VmHWM") - before)}


def _process_bytes(name: str) -> int:
    with open("/proc/self/status") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(name)), 0)


def _forget_peak() -> None:
    """Sets the peak of the process's memory back to what it holds now."""
    with contextlib.suppress(PermissionError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
