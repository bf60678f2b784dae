"""Both environments on a live module: a candidate is measured when it is first chosen, then remembered.

The module joins the recorded table as one more entry, so that observations look exactly as on recorded modules and a
policy that learned there can choose here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from treegym.envs.selection import transition
from treegym.envs.selection.features import GAIN_SCALE, record_rows
from treegym.envs.selection.lanes import Lanes
from treegym.envs.selection.pipeline_world import PipelineWorld
from treegym.envs.selection.selection_world import SelectionWorld
from treegym.envs.selection.world import RecordedWorld
from treegym.envs.world_lanes import LaneStep
from treegym.errors import ConfigError
from treegym.optimize import worker
from treegym.optimize.candidates import Candidate, apply, combinations
from treegym.optimize.config import FOUNDING
from treegym.optimize.fitness import fitness, scores, weights_of
from treegym.optimize.generate import LONGEST, applicable, heaviest, propose
from treegym.optimize.table import ModuleEntry, SelectionTable, load_table
from treegym.optimize.tracker import StrategyTracker

__all__ = ["FAILED", "MeasuredPipelineWorld", "MeasuredWorld", "with_module"]

FAILED = (1e-3, 1e-3, 0.0)  # metrics of a candidate that could not be measured: nobody wants it
Measure = Callable[[Candidate], "tuple[float, float, float] | None"]


class LiveTarget(NamedTuple):
    """A module that is measured live, and what is known of it."""

    entry: ModuleEntry
    names: list[str]  # of the strategies that apply
    measure: Measure
    recorded: SelectionTable
    tracker: StrategyTracker


def live_target(
    model: str, inputs: str | None, strategies: Sequence[str], table: str | None, seconds: float
) -> LiveTarget:
    """Builds a module, looks at it and finds the strategies that apply."""
    from treegym.optimize.features import describe, kind_of
    from treegym.optimize.measure import check_module
    from treegym.optimize.targets import load_module

    module, source = load_module(model, inputs)
    check_module(module, source)
    sample = source(0)
    names, _ = applicable(module, sample, strategies, worker.Limits(), at_once=worker.processors())
    if not names:
        raise ConfigError(f"none of the strategies {list(strategies)} applies to {model!r}")
    entry = ModuleEntry(model, 0, kind_of(module, sample), "test", describe(module, sample))
    recorded = load_table(table)
    return LiveTarget(entry, names, _live_measure(module, source, seconds), recorded, StrategyTracker(table=recorded))


def _live_measure(module: Any, source: Any, seconds: float) -> Measure:
    """Returns a function that measures a candidate of a module in a child process."""
    from treegym.optimize.measure import measure
    from treegym.optimize.measurement import MeasureSettings

    def one(candidate: Candidate) -> tuple[float, float, float] | None:
        def work() -> dict[str, Any]:
            optimised = apply(module, candidate, source(0))
            m = measure(module, optimised, source, MeasureSettings(max_seconds=seconds))
            return {"metrics": [m.speed.value, m.memory.value, m.accuracy.value]}

        result = worker.run(work, fork=worker.can_fork(module)).result
        if result is None:
            return None
        speed, memory, accuracy = result["metrics"]
        return speed, memory, accuracy

    return one


class _Live(RecordedWorld):
    """A world with one root, the live module's, whose measurements are made while stepping."""

    live = True

    def watch(self, candidates: Sequence[Candidate], measure: Measure) -> None:
        """Leaves the live module's root alone in the pool; its candidates are the table's last records."""
        self.live_candidates, self._measure = list(candidates), measure
        module = len(self.table.modules) - 1
        self.root = int(np.flatnonzero(self.module_of == module)[0])
        self.pool = np.array([self.root], np.int64)
        self.start = int(self.table.records_of(module)[0])
        self.known = np.zeros(self.table.size, bool)  # [N], live records that are measured
        self.goal[self.root] = self.base_fitness - self.tolerance

    def advance(self, lanes: Lanes, actions: np.ndarray, outcome: LaneStep, *, next_step_reset: bool) -> None:
        """Measures what the actions choose for the first time, then steps as recorded worlds do."""
        for lane in np.flatnonzero(~lanes.done):
            self.learn(self.record_after(lanes.place[lane], int(actions[lane])))
        super().advance(lanes, actions, outcome, next_step_reset=next_step_reset)

    def learn(self, record: int) -> None:
        """Measures a record of the live module, if that has not been done."""
        if record <= self.start or self.known[record]:
            return
        metrics = self._measure(self.live_candidates[record - self.start - 1])
        self.table.metrics[record] = FAILED if metrics is None else metrics
        self.score[record] = scores(*self.table.metrics[record])
        self.fitness[record] = float(fitness(self.score[record], self.weights))
        self.known[record] = True
        self.show(record)
        best = max(self.base_fitness, float(self.fitness[self.known].max()))
        self.goal[self.root] = best - self.tolerance  # success is the best that is known, and not worse than nothing

    def show(self, record: int) -> None:
        """Writes a new measurement into what observations are made of."""
        raise NotImplementedError


class MeasuredWorld(_Live, SelectionWorld):
    """CandidateSelection on one live module."""

    def __init__(
        self,
        *,
        model: str,
        inputs: str | None = None,
        strategies: Sequence[str] = FOUNDING,
        seconds: float = 1.0,
        num_candidates: int = 5,
        table: str | None = None,
        **settings: Any,
    ) -> None:
        target = live_target(model, inputs, strategies, table, seconds)
        weights = weights_of(settings.get("objective_weights"))
        candidates = propose(target.names, target.entry.kind, target.tracker, weights, num_candidates)
        settings["num_candidates"] = num_candidates
        self._prepare(target.recorded, target.entry, candidates, target.measure, settings)

    @classmethod
    def of(
        cls, table: SelectionTable, entry: ModuleEntry, candidates: Sequence[Candidate], measure: Measure,
        **settings: Any,
    ) -> MeasuredWorld:  # fmt: skip
        """Returns a world over given candidates; `measure` gives their metrics, or None where that fails."""
        world = cls.__new__(cls)
        world._prepare(table, entry, candidates, measure, {"num_candidates": len(candidates), **settings})
        return world

    def _prepare(
        self,
        table: SelectionTable,
        entry: ModuleEntry,
        candidates: Sequence[Candidate],
        measure: Measure,
        settings: dict[str, Any],
    ) -> None:
        SelectionWorld.__init__(self, table=with_module(table, entry, candidates), **{**settings, "sets": 1})
        self.watch(candidates, measure)
        self.candidates[self.root] = -1  # in the order they were given, not drawn
        self.candidates[self.root, : len(candidates)] = self.start + 1 + np.arange(len(candidates))

    def standing_after(self, measured: Iterable[int]) -> np.ndarray:
        """Returns the state of an episode that has measured these candidates ``[STATE] int64``."""
        state = np.zeros(transition.STATE, np.int64)
        state[transition.ROOT], state[transition.BEST] = self.root, -1
        best = self.base_fitness
        for place in measured:
            record = self.start + 1 + place
            self.learn(record)
            state[transition.MEASURED] |= 1 << place
            state[transition.STEPS] += 1
            if self.fitness[record] > best:
                best, state[transition.BEST] = float(self.fitness[record]), place
        return state

    def candidate_name(self, record: int) -> str:
        place = record - self.start - 1
        return self.live_candidates[place].name if place >= 0 else super().candidate_name(record)

    def show(self, record: int) -> None:
        gains = self.fitness - self.base_fitness
        self.gain[record] = GAIN_SCALE * gains[record]
        self.rows[:, record] = record_rows(self.table, self.score, gains)[1][:, record]


class MeasuredPipelineWorld(_Live, PipelineWorld):
    """OptimizationPipeline on one live module: the ensembles of the strategies that apply to it.

    Strategies that the recorded table has no column for (they were never recorded) are no actions.
    """

    def __init__(
        self,
        *,
        model: str,
        inputs: str | None = None,
        strategies: Sequence[str] = FOUNDING,
        seconds: float = 1.0,
        table: str | None = None,
        **settings: Any,
    ) -> None:
        target = live_target(model, inputs, strategies, table, seconds)
        names = [name for name in target.names if name in target.recorded.strategies]
        if not names:
            raise ConfigError(f"none of the strategies {list(strategies)} applies to {model!r}")
        weights = weights_of(settings.get("objective_weights"))
        candidates = combinations(heaviest(names, target.entry.kind, target.tracker, weights), LONGEST)
        super().__init__(table=with_module(target.recorded, target.entry, candidates), **settings)
        self.watch(candidates, target.measure)

    def show(self, record: int) -> None:
        self.show_scores()


def with_module(table: SelectionTable, entry: ModuleEntry, candidates: Sequence[Candidate]) -> SelectionTable:
    """Returns a copy of a table with one more module; its candidates' metrics are 1 until they are measured.

    Strategies that the table has no column for (they were never recorded) are not shown to policies.
    """
    rows = np.zeros((len(candidates) + 1, len(table.strategies)), bool)
    for i, candidate in enumerate(candidates, start=1):
        rows[i] = [name in candidate.strategies for name in table.strategies]
    more = len(rows)
    return SelectionTable(
        (*table.modules, entry),
        table.strategies,
        np.concatenate([table.module, np.full(more, len(table.modules), np.int32)]),
        np.concatenate([table.contains, rows]),
        np.concatenate([table.metrics, np.ones((more, 3))]),
        np.concatenate([table.intervals, np.ones((more, 3, 2))]),
        table.failures,
    )
