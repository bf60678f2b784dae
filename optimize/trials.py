"""Trying candidates on one module: each is applied and measured in a child process, and judged.

A winner must be fitter than the original at the lower end of its measured interval, within the limit on lost accuracy,
and that again when it is measured once more, alone and on other inputs: the best of ten noisy figures flatters.
"""

from __future__ import annotations

import functools
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from treegym.optimize import worker
from treegym.optimize.candidates import Candidate, apply
from treegym.optimize.config import CoreConfig
from treegym.optimize.delivery import Delivery
from treegym.optimize.fitness import fitness, scores
from treegym.optimize.inputs import Inputs
from treegym.optimize.measure import Task, measure
from treegym.optimize.measurement import Measurement, MeasureSettings
from treegym.optimize.strategies.base import Given, call, map_tensors

__all__ = ["Elsewhere", "Evaluated", "Trials"]

# Measures candidates with inputs of a seed on other machines, all of one kind; outcomes in the order given.
Elsewhere = Callable[[Sequence[Candidate], int, worker.Limits], list[worker.WorkResult]]

RESOLUTION = 0.02  # speed ratios closer to 1 than this cannot be told from it
SECOND_SEED = 50_000_017  # added to the seed of inputs when a winner is measured once more


@dataclass(frozen=True)
class Evaluated:
    """A candidate and what became of it."""

    candidate: Candidate
    measurement: Measurement | None
    fitness: float
    reason: str = ""  # why it has no measurement


class Trials:
    """The candidates of one module that were measured so far.

    Args:
        original: the module, in evaluation mode; it is not touched.
        source: its inputs by seed.
        weights: objective weights ``[3]``.
        task: a score of a module on its own task (higher is better); None: accuracy is output fidelity.
    """

    def __init__(
        self, original: nn.Module, source: Inputs, config: CoreConfig, weights: np.ndarray, task: Task | None = None
    ) -> None:
        self.original, self.source, self.config, self.weights, self.task = original, source, config, weights, task
        self.limits = worker.Limits(seconds=config.timeout, megabytes=config.megabytes)
        self.processes = config.processes or worker.processors()
        self.base_fitness = float(fitness(scores(1.0, 1.0, 1.0), weights))
        self.evaluated: list[Evaluated] = []
        self.known: dict[str, Measurement] = {}  # what was measured before, by the candidate's name
        self.keep: Callable[[Mapping[str, Measurement]], None] | None = None  # told what was measured, batch by batch
        self.elsewhere: Elsewhere | None = None  # None: measured here
        self.deadline = math.inf  # of `time.monotonic`: what is not measured by then is given up
        self.unconfirmed: dict[str, str] = {}  # winners that were none when measured once more, and why
        self._folder = tempfile.TemporaryDirectory(prefix="treegym-programs-")  # of back ends, each built once
        self.given = Given(
            source, 0.01 if config.max_accuracy_drop is None else config.max_accuracy_drop, Path(self._folder.name)
        )

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluated]:
        """Measures candidates, each in a child process, side by side; those that are known are looked up."""
        known = {one: self.known[one.name] for one in candidates if one.name in self.known}
        measured = iter(self._measure_all([one for one in candidates if one not in known]))
        found = [self._judged(one, known[one]) if one in known else next(measured) for one in candidates]
        self.evaluated += found
        made = {one.candidate.name: one.measurement for one in found if one.measurement and one.candidate not in known}
        if self.keep is not None and made:
            self.keep(made)
        return found

    def _measure_all(self, candidates: Sequence[Candidate]) -> list[Evaluated]:
        left = max(1.0, self.deadline - time.monotonic())
        limits = replace(self.limits, seconds=min(left, self.limits.seconds))
        measure_all = self.elsewhere or self.outcomes
        outcomes = measure_all(candidates, self.config.seed, limits) if candidates else []
        return [self._found(candidate, outcome) for candidate, outcome in zip(candidates, outcomes, strict=True)]

    def outcomes(self, candidates: Sequence[Candidate], seed: int, limits: worker.Limits) -> list[worker.WorkResult]:
        """Applies and measures candidates here, each in a child process, with inputs of a seed."""
        sample = self.source(seed)

        def work(candidate: Candidate) -> dict[str, Any]:
            start = time.perf_counter()
            optimised = apply(self.original, candidate, sample, self.given)
            with torch.inference_mode():
                call(optimised, map_tensors(sample, torch.clone))
            spent = time.perf_counter() - start
            return self._measured(optimised, seed) | {"build_seconds": spent}

        works = [functools.partial(work, candidate) for candidate in candidates]
        return worker.run_all(works, limits, at_once=self.processes, fork=worker.can_fork(self.original))

    def allowed(self, found: Evaluated) -> bool:
        """Returns whether a candidate is surely better than the original, within the limits on accuracy and speed."""
        m = found.measurement
        if m is None or self.breaks_limit(m) or self.slower(m):
            return False
        cautious = fitness(scores(m.speed.low, m.memory.low, m.accuracy.low), self.weights)
        return bool(cautious > self.base_fitness)

    def breaks_limit(self, m: Measurement) -> bool:
        """Returns whether a measurement shows more lost accuracy than allowed."""
        drop = self.config.max_accuracy_drop
        return drop is not None and 1.0 - m.accuracy.low > drop

    def slower(self, m: Measurement) -> bool:
        """Returns whether a measurement shows a candidate slower than the original, where that is not allowed."""
        return not self.config.allow_slower and (m.speed.value < 1.0 or m.speed.low < 1.0 - RESOLUTION)

    def winner(self, delivery: Delivery | None = None) -> tuple[nn.Module, Evaluated | None]:
        """Applies the best candidate that is allowed and has it measured once more; returns the original for none.

        Args:
            delivery: measures it in a fresh process, rebuilt from its recipe; None: in a child of this one.
        """
        for found in sorted((one for one in self.evaluated if self.allowed(one)), key=lambda one: -one.fitness):
            name = found.candidate.name
            try:
                optimised = apply(self.original, found.candidate, self.source(self.config.seed), self.given)
            except Exception as error:  # noqa: BLE001 - a strategy's own code; what ran in a child may fail here
                self.unconfirmed[name] = f"could not be applied: {type(error).__name__}: {error}"
                continue
            seed = self.config.seed + SECOND_SEED
            if self.elsewhere is not None:
                outcome = self.elsewhere([found.candidate], seed, self.limits)[0]
            elif delivery is None:
                work = functools.partial(self._measured, optimised, seed)
                outcome = worker.run(work, self.limits, fork=worker.can_fork(self.original))
            else:
                settings, limits = self._settings(seed), self.limits
                outcome = delivery.judge(self.original, optimised, found.candidate, self.source, settings, limits)
            again = self._found(found.candidate, outcome)
            if self.allowed(again):
                return optimised, again
            self.unconfirmed[name] = again.reason or "measured once more, it was not surely better within the limits"
        return self.original, None

    def _measured(self, optimised: nn.Module, seed: int) -> dict[str, Any]:
        return measure(self.original, optimised, self.source, self._settings(seed), self.task).as_dict()

    def _settings(self, seed: int) -> MeasureSettings:
        return MeasureSettings(max_seconds=self.config.seconds_per_candidate, seed=seed)

    def _found(self, candidate: Candidate, outcome: worker.WorkResult) -> Evaluated:
        if outcome.result is None:
            return Evaluated(candidate, None, 0.0, outcome.reason)
        return self._judged(candidate, Measurement.from_dict(outcome.result), outcome.reason)

    def _judged(self, candidate: Candidate, m: Measurement, reason: str = "") -> Evaluated:
        value = float(fitness(scores(m.speed.value, m.memory.value, m.accuracy.value), self.weights))
        return Evaluated(candidate, m, value, reason)
