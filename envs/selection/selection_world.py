"""SelectionWorld: a root is a module with a set of its candidates, of which one is chosen.

Episodes that start at the same root have the same choice before them.
Letters: R roots, M modules, N records, C candidates, F features of a candidate.
"""

from __future__ import annotations

import functools
import zlib
from typing import Any

import numpy as np

from treegym.checks import whole
from treegym.envs.layout import ObservationLayout
from treegym.envs.selection.features import GAIN_SCALE, module_rows, record_rows
from treegym.envs.selection.lanes import Lanes
from treegym.envs.selection.observation import observe_set
from treegym.envs.selection.transition import BEST, MEASURED, ROOT, SetCells, advance_set
from treegym.envs.selection.world import BASE, RecordedWorld, Solution, threshold
from treegym.envs.world_lanes import LaneStep
from treegym.optimize.fitness import pareto_front

__all__ = ["SelectionWorld"]

MAX_CANDIDATES = 62  # what is measured is kept in the bits of an integer


class SelectionWorld(RecordedWorld):
    """Everything that `CandidateSelection` looks things up in; shared by all lanes."""

    name = "CandidateSelection"

    def __init__(
        self,
        *,
        num_candidates: int = 5,
        sets: int = 64,
        convergence_threshold: float | None = None,
        **settings: Any,
    ) -> None:
        self.num_candidates = whole("num_candidates", num_candidates, low=1, high=MAX_CANDIDATES)
        self.num_actions = num_candidates + 1
        self.sets = whole("sets", sets, low=1)
        self.convergence = threshold("convergence_threshold", convergence_threshold, -1.0)
        super().__init__(**settings)
        self.candidates = self._candidate_sets()  # [R, C] int64
        self.module_of = np.repeat(np.arange(len(self.table.modules)), sets)
        self.first = np.zeros(len(self.module_of), np.int64)
        self.pool = self.starts()
        self._lay_out()
        self.solution = self._solve()
        self.goal = self.solution.fitness - self.tolerance

    def _candidate_sets(self) -> np.ndarray:
        """Draws the sets of every module, from seeds that hang on the module's name alone."""
        result = np.full((len(self.table.modules) * self.sets, self.num_candidates), -1, np.int64)
        for m, module in enumerate(self.table.modules):
            records = self.table.records_of(m)[1:]
            rng = np.random.default_rng(zlib.crc32(module.title.encode()))
            for s in range(self.sets):
                chosen = rng.permutation(records)[: self.num_candidates]
                result[m * self.sets + s, : len(chosen)] = chosen
        return result

    def _lay_out(self) -> None:
        names, fixed = module_rows(self.table)
        child, rows, original, low, high = record_rows(self.table, self.score, self.fitness - self.base_fitness)
        self.module_row = fixed[self.module_of]  # [R, S0] float32
        self.rows, self.original = rows, original
        self.gain = (GAIN_SCALE * (self.fitness - self.base_fitness)).astype(np.float32)
        self.layout = ObservationLayout(self.num_actions, (*names, "iterations_left", "measured", "best_gain"), child)
        self.best_column = child.index("is_best")
        state_low = np.concatenate([np.full(len(names), -4.0), [0.0, 0.0, -GAIN_SCALE]])
        state_high = np.concatenate([np.full(len(names), 4.0), [1.0, 1.0, GAIN_SCALE]])
        self.low = np.concatenate([state_low, np.tile(low, self.num_actions)]).astype(np.float32)
        self.high = np.concatenate([state_high, np.tile(high, self.num_actions)]).astype(np.float32)

    def _solve(self) -> Solution:
        best = np.empty(len(self.candidates), np.int64)
        fronts = []
        for r, candidates in enumerate(self.candidates):
            original = self.table.records_of(int(self.module_of[r]))[0]
            options = np.concatenate([[original], candidates[candidates >= 0]])
            best[r] = options[np.argmax(self.fitness[options])]
            fronts.append(options[pareto_front(self.score[options])])
        top = self.fitness[best]
        gain = top - self.base_fitness
        return Solution(best, top, np.maximum(gain - self.cost, 0.0), tuple(fronts))

    @functools.cached_property
    def cells(self) -> SetCells:
        """What the kernel of a step reads; complete once the world is made."""
        return SetCells(
            self.candidates, self.score, self.fitness, self.weights, BASE, self.base_fitness, self.goal, self.cost,
            self.illegal_penalty, self.good_enough, self.convergence, self.pool, self.first,
        )  # fmt: skip

    def advance(self, lanes: Lanes, actions: np.ndarray, outcome: LaneStep, *, next_step_reset: bool) -> None:
        advance_set(actions, lanes.limit, next_step_reset, *self.cells, *lanes.episodes, *outcome)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        observations, mask = self.blank(len(state))
        observe_set(
            state, self.candidates, self.module_row, self.rows, self.original, self.best_column, self.gain,
            self.max_iterations, observations, mask,
        )  # fmt: skip
        return {"observations": observations, "action_mask": mask}

    def record_after(self, state: np.ndarray, action: int) -> int:
        return int(self.candidates[int(state[ROOT]), action]) if 0 <= action < self.num_candidates else -1

    def stands(self, state: np.ndarray) -> np.ndarray:
        best, bits = state[:, BEST], state[:, MEASURED]
        inside = (best >= -1) & (best < self.num_candidates) & (bits >= 0) & (bits < 1 << self.num_candidates)
        return inside & ((best < 0) | (self.candidates[state[:, ROOT], np.where(inside, best, 0)] >= 0))

    def action_names(self, state: np.ndarray) -> list[str]:
        row = self.candidates[int(state[ROOT])]
        return [self.candidate_name(int(record)) if record >= 0 else "" for record in row] + ["original"]

    def measured(self, state: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
        bits, row = int(state[MEASURED]), self.candidates[int(state[ROOT])]
        found = [int(record) for c, record in enumerate(row) if (bits >> c) & 1]
        return [(self.candidate_name(n), self.table.metrics[n], float(self.fitness[n])) for n in found]

    def standing(self, state: np.ndarray) -> str:
        root, best = int(state[ROOT]), int(state[BEST])
        return "original" if best < 0 else self.candidate_name(int(self.candidates[root, best]))
