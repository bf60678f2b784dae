"""PipelineWorld: the recorded ensembles as a lattice that is walked strategy by strategy, with its exact optimum.

Letters: R roots (modules), N records (ensembles), S strategies, K = S + 1 actions.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from treegym.envs.layout import ObservationLayout
from treegym.envs.selection.features import GAIN_SCALE, PRIOR_LIMIT, PRIOR_SCALE, module_rows, strategy_logs
from treegym.envs.selection.lanes import Lanes
from treegym.envs.selection.observation import observe_ensemble
from treegym.envs.selection.transition import NODE, ROOT, EnsembleCells, advance_ensemble
from treegym.envs.selection.world import BASE, SHOWN, RecordedWorld, Solution
from treegym.envs.world_lanes import LaneStep
from treegym.optimize.fitness import pareto_front, scores
from treegym.optimize.strategies import STRATEGIES

__all__ = ["PipelineWorld"]


class PipelineWorld(RecordedWorld):
    """Everything that `OptimizationPipeline` looks things up in; shared by all lanes."""

    name = "OptimizationPipeline"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.num_actions = len(self.table.strategies) + 1
        self.module_of = np.arange(len(self.table.modules))
        self.first = np.array([self.table.records_of(int(m))[0] for m in self.module_of], np.int64)
        self.pool = self.starts()
        self.following = self._lattice()
        self.legal = np.ones((self.table.size, self.num_actions), np.int8)
        self.legal[:, :-1] = self.following >= 0
        self._lay_out()
        self.solution = self._solve()
        self.goal = self.solution.fitness - self.tolerance

    def _lattice(self) -> np.ndarray:
        """Returns where adding each strategy leads ``[N, S] int64``; -1 where the larger ensemble was not recorded."""
        where = {
            (int(m), row.tobytes()): n
            for n, (m, row) in enumerate(zip(self.table.module, self.table.contains, strict=True))
        }
        following = np.full(self.table.contains.shape, -1, np.int64)
        for n, (m, row) in enumerate(zip(self.table.module, self.table.contains, strict=True)):
            for s in np.flatnonzero(~row):
                larger = row.copy()
                larger[s] = True
                following[n, s] = where.get((int(m), larger.tobytes()), -1)
        return following

    def _lay_out(self) -> None:
        table = self.table
        names, fixed = module_rows(table)
        state = (*names, "iterations_left", "speed", "memory", "accuracy", "gain", "length")
        identity = tuple(f"is:{name}" for name in (*table.strategies, "stop"))
        child = (*identity, "applied", "nominal:speed", "nominal:memory", "nominal:accuracy", "history:speed",
                 "history:memory", "history:accuracy", "prior")  # fmt: skip
        self.layout = ObservationLayout(self.num_actions, state, child)
        strategies = len(table.strategies)
        self.rows = np.zeros((table.size, self.layout.size), np.float32)
        front, children = self.layout.split(self.rows)
        front[:, : len(names)] = fixed[table.module]
        self.steps_column = len(names)
        front[:, self.steps_column + 5] = table.contains.sum(1) / 4.0
        children[:, :, : self.num_actions] = np.eye(self.num_actions)
        at = self.num_actions
        children[:, :strategies, at] = table.contains
        children[:, :strategies, at + 1 : at + 4] = np.log([STRATEGIES[name].nominal for name in table.strategies])
        alone = np.exp(strategy_logs(table)[0])  # [M, S, 3]
        expected = (scores(alone[..., 0], alone[..., 1], alone[..., 2]) - BASE) * SHOWN
        children[:, :strategies, at + 4 : at + 7] = expected[table.module]
        prior = PRIOR_SCALE * (expected / SHOWN) @ np.array([0.4, 0.3, 0.3])
        children[:, :strategies, at + 7] = np.clip(prior, -PRIOR_LIMIT, PRIOR_LIMIT)[table.module]
        self.show_scores()
        self.low = np.full(self.layout.size, -PRIOR_LIMIT, np.float32)
        self.high = np.full(self.layout.size, PRIOR_LIMIT, np.float32)

    def show_scores(self) -> None:
        """Writes the scores and the gain of every ensemble into its row."""
        front, at = self.layout.split(self.rows)[0], self.steps_column
        front[:, at + 1 : at + 4] = (self.score - BASE) * SHOWN
        front[:, at + 4] = GAIN_SCALE * (self.fitness - self.base_fitness)

    def _solve(self) -> Solution:
        """Walks the lattice from small ensembles to large: what can be reached, at what cost, within the budget."""
        table = self.table
        length = table.contains.sum(1)
        reachable = np.zeros(table.size, bool)
        reachable[self.first] = True
        for n in np.argsort(length, kind="stable"):
            if reachable[n] and length[n] < self.max_iterations:
                reachable[self.following[n][self.following[n] >= 0]] = True
        best = np.empty(len(self.first), np.int64)
        value = np.empty(len(self.first))
        fronts = []
        for m in self.module_of:
            options = np.flatnonzero(reachable & (table.module == m))
            best[m] = options[np.argmax(self.fitness[options])]
            value[m] = np.max(self.fitness[options] - self.base_fitness - self.cost * length[options])
            fronts.append(options[pareto_front(self.score[options])])
        return Solution(best, self.fitness[best], value, tuple(fronts))

    @functools.cached_property
    def cells(self) -> EnsembleCells:
        """What the kernel of a step reads; complete once the world is made."""
        return EnsembleCells(
            self.following, self.score, self.fitness, self.weights, self.goal, self.cost, self.illegal_penalty,
            self.good_enough, self.pool, self.first,
        )  # fmt: skip

    def advance(self, lanes: Lanes, actions: np.ndarray, outcome: LaneStep, *, next_step_reset: bool) -> None:
        advance_ensemble(actions, lanes.limit, next_step_reset, *self.cells, *lanes.episodes, *outcome)

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        observations, mask = self.blank(len(state))
        observe_ensemble(state, self.rows, self.legal, self.steps_column, self.max_iterations, observations, mask)
        return {"observations": observations, "action_mask": mask}

    def record_after(self, state: np.ndarray, action: int) -> int:
        return int(self.following[int(state[NODE]), action]) if 0 <= action < self.following.shape[1] else -1

    def stands(self, state: np.ndarray) -> np.ndarray:
        node = state[:, NODE]
        inside = (node >= 0) & (node < self.table.size)
        return inside & (self.table.module[np.where(inside, node, 0)] == self.module_of[state[:, ROOT]])

    def action_names(self, state: np.ndarray) -> list[str]:
        legal = self.legal[int(state[NODE])]
        return [name if there else "" for name, there in zip((*self.table.strategies, "stop"), legal, strict=True)]

    def measured(self, state: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
        here = int(state[NODE])
        return [(self.table.name(here), self.table.metrics[here], float(self.fitness[here]))]

    def standing(self, state: np.ndarray) -> str:
        return self.table.name(int(state[NODE]))
