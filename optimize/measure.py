"""Measuring a candidate against the original: speed, memory and accuracy, each with its interval.

Speed is the ratio of paired, interleaved timings: both modules get the same fresh input in every pair, in alternating
order, and the pair's ratio cancels a drift of the machine. No module sees an input twice, for speed or for memory, so
remembering gains nothing; outputs are read before the clock stops, so putting work off gains nothing; and the outputs
of the timed calls themselves are compared, so leaving work out is an error.
"""

from __future__ import annotations

import functools
import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from treegym.errors import ConfigError
from treegym.optimize.measurement import Interval, Measurement, MeasureSettings
from treegym.optimize.memory import footprint, peak_allocation
from treegym.optimize.strategies import STRATEGIES, load
from treegym.optimize.strategies.base import map_tensors, tensors_of

__all__ = [
    "Interval",
    "MeasureSettings",
    "Measurement",
    "Task",
    "check_module",
    "measure",
    "output_error",
    "warm_up_process",
]


Inputs = Callable[[int], tuple[Any, ...]]  # seed -> fresh arguments of the module
Task = Callable[[nn.Module], float]  # a score of the module on its own task, higher is better


@functools.cache
def warm_up_process() -> None:
    """Loads what measuring needs, once, before children are forked: profiler, graph tracing, quantisation kernels.

    Each child would otherwise spend a second or two on it.
    """
    import torch.ao.quantization
    import torch.fx
    import torch.utils.flop_counter

    for name in STRATEGIES.own:  # strategies of the user's own are loaded where they may fail: in the child
        load(name)
    module, x = nn.Linear(2, 2), torch.zeros(1, 2)
    with torch.no_grad():
        peak_allocation(module, (x,))


def check_module(module: nn.Module, inputs: Inputs, seed: int = 0) -> None:
    """Raises ConfigError if the module cannot run on its inputs, gives no tensor, or is not deterministic."""
    with torch.no_grad():
        try:
            x = inputs(seed)
            first = module(*map_tensors(x, torch.clone))
            second = module(*map_tensors(x, torch.clone))
        except Exception as error:
            raise ConfigError(
                f"the module does not run on the given input ({type(error).__name__}: {str(error)[:300]}); "
                "inputs are a tuple of its positional arguments, on its device"
            ) from error
    if not _floats(first):
        raise ConfigError(
            f"the module's output has no floating-point tensor to compare (it is a {type(first).__name__})"
        )
    if output_error(first, second) > 1e-6:
        raise ConfigError("the module is not deterministic: the same input gave two different outputs")


def output_error(expected: Any, got: Any) -> float:
    """Returns ``|got - expected| / |expected|`` over all floating-point outputs together; 1 where shapes differ.

    Numbers that are not finite must be the same on both sides (as masked logits are); elsewhere they are an error of 1.
    """
    ours, theirs = _floats(expected), _floats(got)
    if len(ours) != len(theirs) or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        return 1.0
    difference = size = 0.0
    for a, b in zip(ours, theirs, strict=True):
        a, b = a.double(), b.double()
        finite = a.isfinite()
        if not finite.all():
            if not torch.equal(a[~finite].nan_to_num(nan=0.5), b[~finite].nan_to_num(nan=0.5)):
                return 1.0
            a, b = a[finite], b[finite]
        difference += float((a - b).square().sum())
        size += float(a.square().sum())
    if not math.isfinite(difference):
        return 1.0
    return min(1.0, math.sqrt(difference / size)) if size > 0 else float(difference > 0)


def measure(
    original: nn.Module,
    candidate: nn.Module,
    inputs: Inputs,
    settings: MeasureSettings | None = None,
    task: Task | None = None,
) -> Measurement:
    """Measures a candidate; both modules are in evaluation mode and run without gradients."""
    settings = settings or MeasureSettings()
    clock = _clock(original, settings.clock)
    with torch.no_grad(), _no_collection():
        calls = _warm_up(original, candidate, inputs, settings, clock)
        ratios: list[float] = []
        errors: list[float] = []
        times: tuple[list[float], list[float]] = ([], [])
        deadline = time.perf_counter() + settings.max_seconds
        seed = settings.seed + 1_000_003
        while len(ratios) < settings.max_pairs:
            batch = [inputs(seed + i) for i in range(calls)]
            seed += calls
            order = (original, candidate) if len(ratios) % 2 == 0 else (candidate, original)
            spent, outputs = {}, {}
            for module in order:
                own = [map_tensors(x, torch.clone) for x in batch]  # a module may write into its input
                start = clock()
                outputs[module] = [_consumed(module(*x)) for x in own]
                spent[module] = clock() - start
            ratios.append(math.log(spent[original] / spent[candidate]))
            times[0].append(spent[original] / calls)
            times[1].append(spent[candidate] / calls)
            errors += [output_error(a, b) for a, b in zip(outputs[original], outputs[candidate], strict=True)]
            if len(ratios) >= settings.min_pairs:
                low, high = _median_interval(ratios)
                if high - low < 2 * settings.half_width or time.perf_counter() > deadline:
                    break
            elif time.perf_counter() > deadline + settings.max_seconds:
                break
        earlier, x = inputs(settings.seed + 2_000_003), inputs(settings.seed + 2_000_005)
        sizes = (
            footprint(original) + peak_allocation(original, x, earlier),
            footprint(candidate) + peak_allocation(candidate, x, earlier),
        )
    low, high = _median_interval(ratios)
    saved = max(1, sizes[0]) / max(1, sizes[1])
    return Measurement(
        speed=Interval(math.exp(statistics.median(ratios)), math.exp(low), math.exp(high)),
        memory=Interval(saved, saved, saved),
        accuracy=_accuracy(original, candidate, errors, task),
        output_error=statistics.fmean(errors),
        milliseconds=(statistics.median(times[0]) * 1e3, statistics.median(times[1]) * 1e3),
        bytes=sizes,
        pairs=len(ratios),
    )


def _accuracy(original: nn.Module, candidate: nn.Module, errors: list[float], task: Task | None) -> Interval:
    if task is not None:
        before, after = float(task(original)), float(task(candidate))
        kept = min(1.0, max(0.0, after / before)) if before > 0 else float(after >= before)
        kept = kept if math.isfinite(kept) else 0.0
        return Interval(kept, kept, kept)
    mean = statistics.fmean(errors)
    margin = 1.96 * statistics.stdev(errors) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
    return Interval(1.0 - mean, max(0.0, 1.0 - mean - margin), min(1.0, 1.0 - mean + margin))


def _warm_up(
    original: nn.Module, candidate: nn.Module, inputs: Inputs, settings: MeasureSettings, clock: Callable[[], float]
) -> int:
    """Runs both modules a few times; returns how many calls fill a timed slice."""
    fastest = math.inf
    for i in range(3):
        for module in (original, candidate):
            x = inputs(settings.seed + 500_009 + i)
            start = clock()
            module(*x)
            if i:
                fastest = min(fastest, clock() - start)
    return max(1, min(64, math.ceil(settings.slice_seconds / max(fastest, 1e-7))))


def _median_interval(values: list[float]) -> tuple[float, float]:
    """Returns the distribution-free 95 % interval of the median, from order statistics."""
    ranked = sorted(values)
    count = len(ranked)
    reach = math.ceil(1.96 * math.sqrt(count) / 2)
    low = max(0, count // 2 - reach)
    high = min(count - 1, (count - 1) // 2 + reach)
    return ranked[low], ranked[high]


def _clock(module: nn.Module, name: str) -> Callable[[], float]:
    if name not in ("auto", "cpu", "wall"):
        raise ConfigError(f"clock is {name!r}; it must be auto, cpu or wall")
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    if device.type == "cuda":

        def synchronised() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return synchronised
    alone = torch.get_num_threads() == 1 or os.cpu_count() == 1
    return (
        time.process_time if name == "cpu" or (name == "auto" and alone and _cpu_clock_is_fine()) else time.perf_counter
    )


def _cpu_clock_is_fine() -> bool:
    """Returns whether CPU time is counted finely: under a limit on CPU time (``ulimit -t``) Linux counts 4 ms steps."""
    for _ in range(3):
        start, deadline = time.process_time(), time.perf_counter() + 0.01
        while (now := time.process_time()) == start and time.perf_counter() < deadline:
            pass
        if start < now < start + 1e-4:
            return True
    return False


def _consumed(output: Any) -> Any:
    """Reads a number of every tensor of an output: what is computed only when it is asked for is computed now."""
    for tensor in tensors_of(output):
        if tensor.numel():
            tensor[(-1,) * tensor.dim()].item()
    return output


def _floats(value: Any) -> list[Tensor]:
    numbers = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors_of(value)]
    return [tensor for tensor in numbers if tensor.is_floating_point()]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keeps Python's garbage collector out of the timed slices."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
