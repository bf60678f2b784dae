"""SelectionWorld: a recorded table made ready for stepping, with its exact optimum.

A root is a module with a set of its candidates; episodes that start at the same root have the same choice before them.
Letters: R roots, M modules, N records, C candidates, K actions, F features of a candidate, S of the state.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treegym.envs.layout import ObservationLayout
from treegym.envs.selection import transition
from treegym.errors import ConfigError, suggest
from treegym.optimize.features_table import GAIN_SCALE, module_rows, record_rows
from treegym.optimize.fitness import OBJECTIVES, fitness, scores, weights_of, zones_of
from treegym.optimize.pareto import pareto_front
from treegym.optimize.table import SPLITS, SelectionTable, load_table

__all__ = ["TERMS", "SelectionWorld", "Solution"]

TERMS = (*OBJECTIVES, "cost")  # the vector reward, in order
MAX_CANDIDATES = 62  # what is measured is kept in the bits of an integer


@dataclass(frozen=True)
class Solution:
    """The exact optimum of every root."""

    best: np.ndarray  # [R] int64, the record of highest fitness (of all that can be chosen, the original included)
    fitness: np.ndarray  # [R] float64, its fitness
    value: np.ndarray  # [R] float64, the highest return of an episode
    pareto: tuple[np.ndarray, ...]  # records of the Pareto front in speed, memory and accuracy


class SelectionWorld:
    """Everything the kernels look things up in; shared by all lanes."""

    name = "CandidateSelection"
    live = False  # whether candidates are measured while stepping

    def __init__(
        self,
        *,
        table: str | SelectionTable | None = None,
        split: str = "train",
        num_candidates: int = 5,
        sets: int = 64,
        objective_weights: Mapping[str, float] | None = None,
        evaluation_cost: float = 0.002,
        illegal_penalty: float = 0.1,
        max_iterations: int = 10,
        performance_threshold: float | None = None,
        convergence_threshold: float | None = None,
        tolerance: float = 0.005,
        reward_zones: Sequence[Sequence[float]] | None = None,
    ) -> None:
        check_numbers(
            {"num_candidates": num_candidates, "sets": sets, "max_iterations": max_iterations},
            {"evaluation_cost": evaluation_cost, "illegal_penalty": illegal_penalty, "tolerance": tolerance},
        )
        if num_candidates > MAX_CANDIDATES:
            raise ConfigError(f"num_candidates is {num_candidates}; at most {MAX_CANDIDATES} are possible")
        self.table = table if isinstance(table, SelectionTable) else load_table(table)
        self.num_candidates, self.num_actions, self.sets = num_candidates, num_candidates + 1, sets
        self.weights = weights_of(objective_weights)
        self.cost, self.illegal_penalty = float(evaluation_cost), float(illegal_penalty)
        self.max_iterations, self.tolerance = max_iterations, float(tolerance)
        self.zones = zones_of(reward_zones)
        self.good_enough = threshold("performance_threshold", performance_threshold, np.inf)
        self.convergence = threshold("convergence_threshold", convergence_threshold, -1.0)
        self.split = split
        self.base = scores(1.0, 1.0, 1.0)
        self.base_fitness = float(fitness(self.base, self.weights))
        self._score()
        self.candidates = self._candidate_sets()  # [R, C] int64
        self.module_of = np.repeat(np.arange(len(self.table.modules)), sets)  # [R]
        self.first = np.zeros(len(self.module_of), np.int64)
        self.pool = choose_pool(self.table, split, self.module_of)
        self._lay_out()
        self.solution = self._solve()
        self.goal = self.solution.fitness - self.tolerance

    def _score(self) -> None:
        self.score = scores(*self.table.metrics.T)  # [N, 3]
        self.fitness = fitness(self.score, self.weights)  # [N]

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

    # ---------------------------------------------------------------- stepping

    def advance(self, lanes: Any, actions: np.ndarray, outcome: Any, *, next_step_reset: bool) -> None:
        transition.advance(
            actions, self.candidates, self.score, self.fitness, self.base, self.base_fitness, self.goal, self.cost,
            self.illegal_penalty, self.good_enough, self.convergence, lanes.limit, next_step_reset, self.pool,
            self.first, lanes.key, lanes.episode, lanes.state, lanes.done, outcome.reward, outcome.vector,
            self.weights, outcome.terminated, outcome.truncated, outcome.illegal, outcome.success,
        )  # fmt: skip

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Returns fresh observations of lanes in these states."""
        observations = np.empty((len(state), len(self.low)), np.float32)
        mask = np.empty((len(state), self.num_actions), np.int8)
        transition.observe(
            state, self.candidates, self.module_row, self.rows, self.original, self.best_column, self.gain,
            self.max_iterations, observations, mask,
        )  # fmt: skip
        return {"observations": observations, "action_mask": mask}

    # ---------------------------------------------------------------- words

    def candidate_name(self, record: int) -> str:
        """Returns the name of a record's candidate."""
        return self.table.name(record)

    def action_names(self, state: np.ndarray) -> list[str]:
        """Returns what each action chooses in a state: candidates by name, "" where there is none."""
        row = self.candidates[int(state[transition.ROOT])]
        return [self.candidate_name(int(record)) if record >= 0 else "" for record in row] + ["original"]

    def measured(self, state: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
        """Returns name, metrics and fitness of what the episode has measured so far."""
        bits, row = int(state[transition.MEASURED]), self.candidates[int(state[transition.ROOT])]
        found = [int(record) for c, record in enumerate(row) if (bits >> c) & 1]
        return [(self.candidate_name(n), self.table.metrics[n], float(self.fitness[n])) for n in found]

    def text(self, state: np.ndarray) -> str:
        """Returns the episode in words: the module, and the best candidate measured so far."""
        root, best = int(state[transition.ROOT]), int(state[transition.BEST])
        name = "original" if best < 0 else self.candidate_name(int(self.candidates[root, best]))
        return f"{self.title(root)}: {name}"

    def title(self, root: int) -> str:
        """Returns the module of a root."""
        return self.table.modules[int(self.module_of[root])].title


def choose_pool(table: SelectionTable, split: str, module_of: np.ndarray) -> np.ndarray:
    """Returns the roots of a split ``[n] int64``; "all" takes every module."""
    if split != "all" and split not in SPLITS:
        raise ConfigError(f"there is no split {split!r}.{suggest(split, [*SPLITS, 'all'])}")
    there = np.array([split in ("all", module.split) for module in table.modules])
    pool = np.flatnonzero(there[module_of])
    if not len(pool):
        raise ConfigError(f"the recorded table has no module in split {split!r}; choose another split")
    return pool


def check_numbers(whole: dict[str, Any], real: dict[str, Any]) -> None:
    """Raises ConfigError unless the first are whole numbers from 1 (max_iterations: 2) and the others finite from 0."""
    for name, value in whole.items():
        low = 2 if name == "max_iterations" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {low}")
    for name, value in real.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < np.inf:
            raise ConfigError(f"{name} is {value!r}; it must be a number of at least 0")


def threshold(name: str, value: float | None, off: float) -> float:
    """Returns a threshold, or what stands for none."""
    if value is None:
        return off
    check_numbers({}, {name: value})
    return float(value)
