"""MeasuredPipelineWorld: OptimizationPipeline on a live module. An ensemble is measured when it is first built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treegym.envs.selection import transition
from treegym.envs.selection.measured import FAILED, FOUNDING, live_target, with_module
from treegym.envs.selection.pipeline_world import PipelineWorld
from treegym.errors import ConfigError
from treegym.optimize.candidates import combinations
from treegym.optimize.fitness import fitness, scores, weights_of
from treegym.optimize.generate import LONGEST, PARTS

__all__ = ["MeasuredPipelineWorld"]


class MeasuredPipelineWorld(PipelineWorld):
    """A PipelineWorld with one root: the ensembles of the strategies that apply to a module, measured while stepping.

    Strategies that the recorded table has no column for (they were never recorded) are no actions.
    """

    live = True

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
        shares = target.tracker.dynamic_weights(target.entry.kind, names, weights_of(settings.get("objective_weights")))
        heaviest = sorted(names, key=lambda name: shares[name], reverse=True)[:PARTS]
        self.live_candidates, self._measure = combinations(heaviest, LONGEST), target.measure
        super().__init__(table=with_module(target.recorded, target.entry, self.live_candidates), **settings)
        self.root = len(self.table.modules) - 1
        self.pool = np.array([self.root], np.int64)
        self.start = int(self.table.records_of(self.root)[0])
        self.known = np.zeros(self.table.size, bool)  # [N], ensembles that are measured
        self.goal[self.root] = self.base_fitness - self.tolerance

    def advance(self, lanes: Any, actions: np.ndarray, outcome: Any, *, next_step_reset: bool) -> None:
        """Measures what the actions build for the first time, then steps as recorded worlds do."""
        for lane in np.flatnonzero(~lanes.done):
            action = int(actions[lane])
            if 0 <= action < self.following.shape[1]:
                record = int(self.following[int(lanes.state[lane, transition.NODE]), action])
                if record > self.start and not self.known[record]:
                    self._learn(record)
        super().advance(lanes, actions, outcome, next_step_reset=next_step_reset)

    def _learn(self, record: int) -> None:
        metrics = self._measure(self.live_candidates[record - self.start - 1])
        self.table.metrics[record] = FAILED if metrics is None else metrics
        self.score[record] = scores(*self.table.metrics[record])
        self.fitness[record] = float(fitness(self.score[record], self.weights))
        self.known[record] = True
        self.show_scores()
        best = max(self.base_fitness, float(self.fitness[self.known].max()))
        self.goal[self.root] = best - self.tolerance  # success is the best that is known, and not worse than nothing
