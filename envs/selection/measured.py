"""MeasuredWorld: CandidateSelection on a live module. A candidate is measured when it is first chosen, then remembered.

The module joins the recorded table as one more entry, so that observations look exactly as on recorded modules and a
policy that learned there can choose here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from treegym.envs.selection import transition
from treegym.envs.selection.world import SelectionWorld
from treegym.errors import ConfigError
from treegym.optimize import worker
from treegym.optimize.candidates import Candidate
from treegym.optimize.features_table import GAIN_SCALE, record_rows
from treegym.optimize.fitness import fitness, scores, weights_of
from treegym.optimize.generate import applicable, propose
from treegym.optimize.table import ModuleEntry, SelectionTable, load_table
from treegym.optimize.tracker import StrategyTracker

__all__ = ["FAILED", "FOUNDING", "LiveTarget", "MeasuredWorld", "live_target", "with_module"]

FAILED = (1e-3, 1e-3, 0.0)  # metrics of a candidate that could not be measured: nobody wants it
FOUNDING = ("kernel_fusion", "quantization", "memory_pooling", "attention_fusion")  # families of strategies
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
    entry = ModuleEntry(model, 0, kind_of(module, sample), "test", describe(module, sample))
    recorded = load_table(table)
    return LiveTarget(entry, names, live_measure(module, source, seconds), recorded, StrategyTracker(table=recorded))


class MeasuredWorld(SelectionWorld):
    """A SelectionWorld with one root, whose measurements are made while stepping."""

    live = True

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
        if not candidates:
            raise ConfigError(f"none of the strategies {list(strategies)} applies to {model!r}")
        self._prepare(candidates, target.measure)
        super().__init__(
            table=with_module(target.recorded, target.entry, candidates),
            num_candidates=num_candidates,
            **{**settings, "sets": 1},
        )
        self._settle()

    @classmethod
    def of(
        cls,
        table: SelectionTable,
        entry: ModuleEntry,
        candidates: Sequence[Candidate],
        measure: Measure,
        **settings: Any,
    ) -> MeasuredWorld:
        """Returns a world over given candidates; `measure` gives their metrics, or None where that fails."""
        world = cls.__new__(cls)
        world._prepare(candidates, measure)
        extended = with_module(table, entry, candidates)
        settings.setdefault("num_candidates", len(candidates))
        SelectionWorld.__init__(world, table=extended, **{**settings, "sets": 1})
        world._settle()
        return world

    def _prepare(self, candidates: Sequence[Candidate], measure: Measure) -> None:
        self.live_candidates, self._measure = list(candidates), measure

    def _settle(self) -> None:
        """Leaves one root, the live module's, with its candidates in the order they were given."""
        root = len(self.table.modules) - 1
        self.pool = np.array([root], np.int64)
        self.start = int(self.table.records_of(root)[0])
        self.candidates[root] = -1
        self.candidates[root, : len(self.live_candidates)] = self.start + 1 + np.arange(len(self.live_candidates))
        self.known = np.zeros(self.table.size, bool)  # [N], live records that are measured
        self.goal[root] = self.base_fitness - self.tolerance
        self.root = root

    def advance(self, lanes: Any, actions: np.ndarray, outcome: Any, *, next_step_reset: bool) -> None:
        """Measures what the actions choose for the first time, then steps as recorded worlds do."""
        for lane in np.flatnonzero(~lanes.done):
            action = int(actions[lane])
            if 0 <= action < self.num_candidates:
                record = int(self.candidates[int(lanes.state[lane, transition.ROOT]), action])
                if record > self.start and not self.known[record]:
                    self._learn(record)
        super().advance(lanes, actions, outcome, next_step_reset=next_step_reset)

    def standing(self, measured: Iterable[int]) -> np.ndarray:
        """Returns the state of an episode that has measured these candidates ``[STATE] int64``."""
        state = np.zeros(transition.STATE, np.int64)
        state[transition.ROOT], state[transition.BEST] = self.root, -1
        best = self.base_fitness
        for place in measured:
            record = self.start + 1 + place
            if not self.known[record]:
                self._learn(record)
            state[transition.MEASURED] |= 1 << place
            state[transition.STEPS] += 1
            if self.fitness[record] > best:
                best, state[transition.BEST] = float(self.fitness[record]), place
        return state

    def candidate_name(self, record: int) -> str:
        place = record - self.start - 1
        return self.live_candidates[place].name if place >= 0 else super().candidate_name(record)

    def _learn(self, record: int) -> None:
        metrics = self._measure(self.live_candidates[record - self.start - 1])
        self.table.metrics[record] = FAILED if metrics is None else metrics
        self.score[record] = scores(*self.table.metrics[record])
        self.fitness[record] = float(fitness(self.score[record], self.weights))
        self.known[record] = True
        self.gain[record] = GAIN_SCALE * (self.fitness[record] - self.base_fitness)
        self.rows[:, record] = record_rows(self.table, self.score, self.fitness - self.base_fitness)[1][:, record]
        best = max(self.base_fitness, float(self.fitness[self.known].max()))
        self.goal[self.root] = best - self.tolerance  # success is the best that is known, and not worse than nothing


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


def live_measure(module: Any, source: Any, seconds: float) -> Measure:
    """Returns a function that measures a candidate of a module in a child process."""
    from treegym.optimize.candidates import apply
    from treegym.optimize.measure import measure
    from treegym.optimize.measure_types import MeasureSettings

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
