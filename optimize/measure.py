"""Measuring a candidate against the original: speed, memory and accuracy, each with its interval.

Both are measured as they are deployed: frozen, in evaluation and inference mode. Speed is the ratio of paired,
interleaved timings: both get the same fresh inputs in every pair, in alternating order, and the pair's ratio cancels a
drift of the machine. An input is made just before the call that takes it and never comes twice, so remembering or
working ahead gains nothing; outputs are read before the clock stops and copied right after, so putting work off gains
nothing; and the outputs of the timed calls themselves are compared, so leaving work out is an error.
"""

from __future__ import annotations

import functools
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from treegym.errors import ConfigError
from treegym.optimize import worker
from treegym.optimize.clocks import Clocks, clocks_for, helpers, watch
from treegym.optimize.compare import Comparison, leaves, output_error
from treegym.optimize.inputs import Inputs
from treegym.optimize.measurement import Interval, Measurement, MeasureSettings
from treegym.optimize.memory import device_of, footprint, peak_allocation
from treegym.optimize.strategies import STRATEGIES, load
from treegym.optimize.strategies.base import Arguments, call, map_tensors

__all__ = ["Refused", "Task", "check_module", "measure", "warm_up_process"]

Task = Callable[[nn.Module], float]  # a score of a module on its own task, higher is better
PAUSES = 0.5  # waits per call, more than the other side's, from which a module is one that waits
ORIGINAL, CANDIDATE = "original", "candidate"


class Refused(Exception):
    """A candidate that cannot be measured fairly; the message says what it does."""


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
            first = call(module, map_tensors(x, torch.clone))
            second = call(module, map_tensors(x, torch.clone))
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"the module does not run on the given input ({type(error).__name__}: {str(error)[:300]}); "
                "inputs are a tuple of its positional arguments, or a dict of named ones, on its device"
            ) from error
    if not list(leaves(first)):
        raise ConfigError(f"the module's output has no tensor to compare (it is a {type(first).__name__})")
    if output_error(first, second) > 1e-6:
        layer = _changing_layer(module, x)
        where = f"; the first layer whose output changes is {layer}" if layer else ""
        raise ConfigError(f"the module is not deterministic: the same input gave two different outputs{where}")


def _changing_layer(module: nn.Module, x: Arguments) -> str:
    """Returns the name of the first innermost layer that gives two outputs for one input; empty if none is found."""
    runs = [_layer_outputs(module, x) for _ in range(2)]
    for (name, first), (_, second) in zip(*runs, strict=False):
        if output_error(first, second) > 1e-6:
            return f"{name} ({type(module.get_submodule(name)).__name__})"
    return ""


def _layer_outputs(module: nn.Module, x: Arguments) -> list[tuple[str, Any]]:
    """Runs a module and returns the output of every layer, in the order in which they finished."""
    seen: list[tuple[str, Any]] = []

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, out: seen.append((name, map_tensors(out, torch.clone)))

    handles = [layer.register_forward_hook(keep(name)) for name, layer in module.named_modules() if name]
    try:
        with torch.no_grad():
            call(module, map_tensors(x, torch.clone))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def measure(
    original: nn.Module,
    candidate: nn.Module,
    inputs: Inputs,
    settings: MeasureSettings | None = None,
    task: Task | None = None,
) -> Measurement:
    """Measures a candidate; both modules are set to evaluation mode and their parameters frozen.

    Raises:
        Refused: where the candidate leaves helpers running or looks into the frames of its caller.
    """
    settings = settings or MeasureSettings()
    sides = {ORIGINAL: original.eval().requires_grad_(False), CANDIDATE: candidate.eval().requires_grad_(False)}
    clocks = clocks_for(device_of(original), settings.clock)
    with torch.inference_mode(), _no_collection():
        timing = _Timing(sides, inputs, settings, clocks)
        timing.run()
        _check_helpers()
        first, second = (inputs(settings.seed + offset) for offset in (2_000_003, 2_000_005))
        peaks = {who: peak_allocation(module, second, first) for who, module in sides.items()}
        if any(hasattr(part, "engine_bytes") for part in candidate.modules()):
            # what a library allocates for itself cannot be seen from here: no less than the original's is assumed
            peaks[CANDIDATE] = max(peaks.values())
        sizes = [footprint(module) + peaks[who] for who, module in sides.items()]
    speed, wall, cpu = timing.speeds()
    saved = max(1, sizes[0]) / max(1, sizes[1])
    verdicts = tuple(timing.comparison.verdicts())
    worst = verdicts[0]
    accuracy = Interval(worst.kept, worst.low, min(1.0, 2 * worst.kept - worst.low))
    return Measurement(
        speed=speed,
        memory=Interval(saved, saved, saved),
        accuracy=accuracy if task is None else _task_kept(original, candidate, task),
        output_error=worst.error,
        milliseconds=timing.milliseconds(),
        bytes=(sizes[0], sizes[1]),
        pairs=len(timing.ratios["wall"]),
        outputs=verdicts,
        wall=wall,
        cpu=cpu,
    )


class _Timing:
    """Pairs of timed slices, until the interval of their ratio is tight."""

    def __init__(self, sides: dict[str, nn.Module], inputs: Inputs, settings: MeasureSettings, clocks: Clocks) -> None:
        self.sides, self.inputs, self.settings, self.clocks = sides, inputs, settings, clocks
        self.comparison, self.watch = Comparison(), watch()
        self.ratios: dict[str, list[float]] = {"wall": [], "cpu": []}  # logs
        self.times: dict[str, list[float]] = {who: [] for who in sides}  # seconds per call, by the main clock
        self.pauses: dict[str, int] = dict.fromkeys(sides, 0)  # how often it went to wait
        self.calls = 0
        self._seed = settings.seed + 1_000_003

    def run(self) -> None:
        settings, main = self.settings, self.ratios[self.clocks.main]
        calls = self._warm_up()
        deadline = time.perf_counter() + settings.max_seconds
        while len(main) < settings.max_pairs:
            self._pair(calls)
            if len(main) >= settings.min_pairs:
                low, high = _median_interval(main)
                if high - low < 2 * settings.half_width or time.perf_counter() > deadline:
                    break
            elif time.perf_counter() > deadline + settings.max_seconds:
                break
        peeked = self.watch.only(CANDIDATE, ORIGINAL)
        if peeked:
            raise Refused(f"it looks at what it is measured with ({', '.join(sorted(peeked))}), the original does not")

    def _pair(self, calls: int) -> None:
        order = (ORIGINAL, CANDIDATE) if len(self.ratios["wall"]) % 2 == 0 else (CANDIDATE, ORIGINAL)
        slices = {who: self._slice(who, calls) for who in order}
        self._seed += calls
        self.calls += calls
        (_, wall, cpu), (_, new_wall, new_cpu) = slices[ORIGINAL], slices[CANDIDATE]
        self.ratios["wall"].append(math.log(max(wall, 1e-9) / max(new_wall, 1e-9)))
        self.ratios["cpu"].append(math.log(max(cpu, 1e-9) / max(new_cpu, 1e-9)))
        for who, (_, *both) in slices.items():
            self.times[who].append(both[self.clocks.main == "cpu"] / calls)
        for expected, got in zip(slices[ORIGINAL][0], slices[CANDIDATE][0], strict=True):
            self.comparison.add(expected, got)

    def _slice(self, who: str, calls: int) -> tuple[list[list[tuple[str, Tensor]]], float, float]:
        """Times calls one by one; returns copies of their outputs, and seconds by both clocks."""
        module, read = self.sides[who], self.clocks.read
        outputs, wall, cpu = [], 0.0, 0.0
        for i in range(calls):
            x = map_tensors(self.inputs(self._seed + i), torch.clone)  # a module may write into its input
            with self.watch.over(who):
                start = read()
                found = _consumed(call(module, x))
                end = read()
            wall += end.wall - start.wall
            cpu += end.cpu - start.cpu
            self.pauses[who] += end.pauses - start.pauses
            outputs.append([(name, tensor.clone()) for name, tensor in found])
        return outputs, wall, cpu

    def _warm_up(self) -> int:
        """Runs both modules a few times; returns how many calls fill a timed slice."""
        fastest = math.inf
        for i in range(3):
            for module in self.sides.values():
                x = self.inputs(self.settings.seed + 500_009 + i)
                start = time.perf_counter()
                call(module, map_tensors(x, torch.clone))
                if i:
                    fastest = min(fastest, time.perf_counter() - start)
        _check_helpers()
        return max(1, min(64, math.ceil(self.settings.slice_seconds / max(fastest, 1e-7))))

    def speeds(self) -> tuple[Interval, Interval, Interval]:
        """Returns the speed that counts, and the speeds by the wall and by CPU time.

        A candidate that goes to wait (for a helper) is judged by the wall. An original that goes to wait in most calls
        (sleeps, reads) where the candidate does not counts as no slower: leaving out the wait is not a faster
        computation, nor is what caches that went cold in it cost.
        """
        wall, cpu = (_ratio(self.ratios[name]) for name in ("wall", "cpu"))
        speed = wall if self.clocks.main == "wall" else cpu
        waits = (self.pauses[CANDIDATE] - self.pauses[ORIGINAL]) / max(1, self.calls)  # more than the original's
        if self.clocks.both and waits > PAUSES and wall.high < speed.low:
            speed = wall
        elif self.clocks.both and waits < -PAUSES and wall.value > speed.value:
            speed = Interval(*(min(1.0, end) for end in (speed.value, speed.low, speed.high)))
        return speed, wall, cpu

    def milliseconds(self) -> tuple[float, float]:
        """Returns the median time of a call of both sides."""
        first, second = (statistics.median(times) * 1e3 for times in self.times.values())
        return first, second


def _ratio(logs: list[float]) -> Interval:
    """Returns the median ratio; of a candidate that gets slower while it is measured, that of the later half."""
    half = len(logs) // 2
    if half >= 5 and _median_interval(logs[half:])[1] < _median_interval(logs[:half])[0]:
        logs = logs[half:]
    low, high = _median_interval(logs)
    return Interval(math.exp(statistics.median(logs)), math.exp(low), math.exp(high))


def _median_interval(values: list[float]) -> tuple[float, float]:
    """Returns the distribution-free 95 % interval of the median, from order statistics."""
    ranked = sorted(values)
    count = len(ranked)
    reach = math.ceil(1.96 * math.sqrt(count) / 2)
    low = max(0, count // 2 - reach)
    high = min(count - 1, (count - 1) // 2 + reach)
    return ranked[low], ranked[high]


def _task_kept(original: nn.Module, candidate: nn.Module, task: Task) -> Interval:
    before, after = float(task(original)), float(task(candidate))
    kept = min(1.0, max(0.0, after / before)) if before > 0 else float(after >= before)
    kept = kept if math.isfinite(kept) else 0.0
    return Interval(kept, kept, kept)


def _consumed(output: Any) -> list[tuple[str, Tensor]]:
    """Returns an output's tensors, each read: what is computed only when it is asked for is computed now.

    A tensor of PyTorch's own class holds its numbers, and reading one waits for them; of any other class, all are
    copied, by its own code and then, if that gave such a tensor again, as they lie in memory.
    """
    found = []
    for name, tensor in leaves(output):
        if type(tensor) not in (Tensor, nn.Parameter):
            tensor = tensor.clone()
        if type(tensor) not in (Tensor, nn.Parameter):
            with torch._C.DisableTorchFunctionSubclass():
                tensor = tensor.clone().as_subclass(Tensor)
        if tensor.numel():
            tensor[(-1,) * tensor.dim()].item()
        found.append((name, tensor))
    return found


def _check_helpers() -> None:
    """Refuses, in a child that measures one candidate, what would go on working beside the clock."""
    if worker.in_child() and (left := helpers()):
        raise Refused(f"it leaves helpers running ({', '.join(left[:3])}): what they compute cannot be timed")


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
