"""A module that keeps its original beside its optimised form, and uses what is faster for each shape of input."""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import Any

import torch
from torch import nn

from treegym.checks import number, whole
from treegym.optimize.memory import device_of
from treegym.optimize.strategies.base import tensors_of

__all__ = ["AdaptiveModule"]

KEPT = 16  # newest times of each variant and shape


class AdaptiveModule(nn.Module):
    """Two variants of one module; calls are timed now and then, and each shape of input goes where it is faster.

    The first calls of a shape try both in turn. After that the optimised variant is used only while it is faster than
    the original by `margin`, and every `every` calls the other one is tried once: when the machine's load changes, the
    choice follows. So no shape stays on what is slower than the original.

    Args:
        original: the module as it was.
        optimised: what `hybrid_optimize_module` made of it; its outputs were checked there.
        tries: calls of each variant before a shape is decided.
        every: calls between two tries of the variant that is not in use.
        margin: share by which the optimised variant must be faster.
    """

    def __init__(
        self, original: nn.Module, optimised: nn.Module, *, tries: int = 4, every: int = 200, margin: float = 0.02
    ) -> None:
        super().__init__()
        self.original, self.optimised = original, optimised
        self.tries, self.every = whole("tries", tries, low=1), whole("every", every, low=2)
        self.margin = number("margin", margin, low=0, high=1)
        self._device = device_of(original)
        self._shapes: dict[tuple[Any, ...], _Shape] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        key = tuple((x.shape, x.dtype) for x in tensors_of([args, kwargs]))
        shape = self._shapes.setdefault(key, _Shape())
        shape.calls += 1
        fewest = min(shape.times, key=lambda name: len(shape.times[name]))
        if len(shape.times[fewest]) < self.tries:
            return self._timed(shape, fewest, args, kwargs)
        used = "optimised" if shape.gain() > 1.0 + self.margin else "original"
        if shape.calls % self.every < 2:  # one call of each, close together
            used = ("original", "optimised")[shape.calls % self.every]
            return self._timed(shape, used, args, kwargs)
        return getattr(self, used)(*args, **kwargs)

    def report(self) -> list[dict[str, Any]]:
        """Returns, for every shape, its calls, the speed of the optimised variant, and what is used."""
        return [
            {
                "shapes": [list(shape) for shape, _ in key],
                "calls": shape.calls,
                "gain": shape.gain(),
                "used": "optimised" if shape.gain() > 1.0 + self.margin else "original",
            }
            for key, shape in self._shapes.items()
        ]

    def _timed(self, shape: _Shape, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._wait()
        start = time.perf_counter()
        out = getattr(self, name)(*args, **kwargs)
        self._wait()
        shape.times[name].append(time.perf_counter() - start)
        return out

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class _Shape:
    """What is known of one shape of input."""

    def __init__(self) -> None:
        self.calls = 0
        self.times: dict[str, deque[float]] = {name: deque(maxlen=KEPT) for name in ("original", "optimised")}

    def gain(self) -> float:
        """Returns the speed of the optimised variant over the original's; 1 while one of them is unknown."""
        if not all(self.times.values()):
            return 1.0
        return statistics.median(self.times["original"]) / statistics.median(self.times["optimised"])
