"""PipelineWorld: the recorded ensembles as a lattice that is walked strategy by strategy, with its exact optimum.

Letters: R roots (modules), N records (ensembles), S strategies, K = S + 1 actions, D size of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from treegym.envs.layout import ObservationLayout
from treegym.envs.selection import pipeline_transition, transition
from treegym.envs.selection.world import Solution, check_numbers, choose_pool, threshold
from treegym.optimize.features_table import GAIN_SCALE, PRIOR_LIMIT, PRIOR_SCALE, module_rows
from treegym.optimize.fitness import fitness, scores, weights_of, zones_of
from treegym.optimize.history import strategy_logs
from treegym.optimize.pareto import pareto_front
from treegym.optimize.strategies import STRATEGIES
from treegym.optimize.table import SelectionTable, load_table

__all__ = ["PipelineWorld"]


class PipelineWorld:
    """Everything the pipeline's kernels look things up in; shared by all lanes."""

    name = "OptimizationPipeline"
    live = False

    def __init__(
        self,
        *,
        table: str | SelectionTable | None = None,
        split: str = "train",
        objective_weights: Mapping[str, float] | None = None,
        evaluation_cost: float = 0.002,
        illegal_penalty: float = 0.1,
        max_iterations: int = 10,
        performance_threshold: float | None = None,
        tolerance: float = 0.005,
        reward_zones: Sequence[Sequence[float]] | None = None,
    ) -> None:
        check_numbers(
            {"max_iterations": max_iterations},
            {"evaluation_cost": evaluation_cost, "illegal_penalty": illegal_penalty, "tolerance": tolerance},
        )
        self.table = table if isinstance(table, SelectionTable) else load_table(table)
        self.weights = weights_of(objective_weights)
        self.cost, self.illegal_penalty = float(evaluation_cost), float(illegal_penalty)
        self.max_iterations, self.tolerance, self.split = max_iterations, float(tolerance), split
        self.zones = zones_of(reward_zones)
        self.good_enough = threshold("performance_threshold", performance_threshold, np.inf)
        self.num_actions = len(self.table.strategies) + 1
        self.score = scores(*self.table.metrics.T)
        self.fitness = fitness(self.score, self.weights)
        self.module_of = np.arange(len(self.table.modules))
        self.first = np.array([self.table.records_of(int(m))[0] for m in self.module_of], np.int64)
        self.base_fitness = float(self.fitness[self.first[0]])
        self.pool = choose_pool(self.table, split, self.module_of)
        self.following = self._lattice()
        legal = np.ones((self.table.size, self.num_actions), np.int8)
        legal[:, :-1] = self.following >= 0
        self.legal = legal
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
        base, shown = np.array([0.5, 0.5, 1.0]), np.array([2.0, 2.0, 1.0])
        rows = np.zeros((table.size, self.layout.size), np.float32)
        front, children = self.layout.split(rows)
        front[:, : len(names)] = fixed[table.module]
        at = len(names)
        self.steps_column = at
        front[:, at + 5] = table.contains.sum(1) / 4.0
        children[:, :, : self.num_actions] = np.eye(self.num_actions)
        at = self.num_actions
        children[:, :strategies, at] = table.contains
        children[:, :strategies, at + 1 : at + 4] = np.log([STRATEGIES[name].nominal for name in table.strategies])
        alone = np.exp(strategy_logs(table)[0])  # [M, S, 3]
        expected = (scores(alone[..., 0], alone[..., 1], alone[..., 2]) - base) * shown
        children[:, :strategies, at + 4 : at + 7] = expected[table.module]
        prior = PRIOR_SCALE * (expected / shown) @ np.array([0.4, 0.3, 0.3])
        children[:, :strategies, at + 7] = np.clip(prior, -PRIOR_LIMIT, PRIOR_LIMIT)[table.module]
        self.rows = rows
        self.show_scores()
        self.low = np.full(self.layout.size, -PRIOR_LIMIT, np.float32)
        self.high = np.full(self.layout.size, PRIOR_LIMIT, np.float32)

    def show_scores(self) -> None:
        """Writes the scores and the gain of every ensemble into its row."""
        front, at = self.layout.split(self.rows)[0], self.steps_column
        front[:, at + 1 : at + 4] = (self.score - np.array([0.5, 0.5, 1.0])) * np.array([2.0, 2.0, 1.0])
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

    # ---------------------------------------------------------------- stepping

    def advance(self, lanes: Any, actions: np.ndarray, outcome: Any, *, next_step_reset: bool) -> None:
        pipeline_transition.advance(
            actions, self.following, self.score, self.fitness, self.goal, self.cost, self.illegal_penalty,
            self.good_enough, lanes.limit, next_step_reset, self.pool, self.first, lanes.key, lanes.episode,
            lanes.state, lanes.done, outcome.reward, outcome.vector, self.weights, outcome.terminated,
            outcome.truncated, outcome.illegal, outcome.success,
        )  # fmt: skip

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Returns fresh observations of lanes in these states."""
        observations = np.empty((len(state), self.rows.shape[1]), np.float32)
        mask = np.empty((len(state), self.num_actions), np.int8)
        pipeline_transition.observe(
            state, self.rows, self.legal, self.steps_column, self.max_iterations, observations, mask
        )
        return {"observations": observations, "action_mask": mask}

    # ---------------------------------------------------------------- words

    def action_names(self, state: np.ndarray) -> list[str]:
        """Returns what each action adds in a state; "" where it cannot be added."""
        legal = self.legal[int(state[transition.NODE])]
        return [name if there else "" for name, there in zip((*self.table.strategies, "stop"), legal, strict=True)]

    def measured(self, state: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
        """Returns name, metrics and fitness of the ensemble built so far."""
        here = int(state[transition.NODE])
        return [(self.table.name(here), self.table.metrics[here], float(self.fitness[here]))]

    def text(self, state: np.ndarray) -> str:
        """Returns the episode in words: the module and the ensemble."""
        return f"{self.title(int(state[transition.ROOT]))}: {self.table.name(int(state[transition.NODE]))}"

    def title(self, root: int) -> str:
        """Returns the module of a root."""
        return self.table.modules[root].title
