"""What both environments look things up in: a recorded table made ready for stepping, with its exact optimum.

Letters: R roots, M modules, N records, K actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from treegym.checks import number, one_of, whole
from treegym.envs.layout import ObservationLayout
from treegym.envs.selection import render
from treegym.envs.selection.lanes import Lanes
from treegym.envs.selection.transition import ROOT
from treegym.envs.spaces import Spaces
from treegym.envs.states import origin_of
from treegym.envs.world_lanes import LaneStep
from treegym.errors import ConfigError
from treegym.optimize.fitness import OBJECTIVES, fitness, scores, weights_of, zones_of
from treegym.optimize.table import SPLITS, SelectionTable, load_table

__all__ = ["BASE", "SHOWN", "TERMS", "RecordedWorld", "Solution", "threshold"]

TERMS = (*OBJECTIVES, "cost")  # the vector reward, in order
BASE = np.array([0.5, 0.5, 1.0])  # the original's scores
SHOWN = np.array([2.0, 2.0, 1.0])  # scores are shown as (score - BASE) * SHOWN: from -1 to 1, 0 for the original


@dataclass(frozen=True)
class Solution:
    """The exact optimum of every root."""

    best: np.ndarray  # [R] int64, the record of highest fitness (of all that can be chosen, the original included)
    fitness: np.ndarray  # [R] float64, its fitness
    value: np.ndarray  # [R] float64, the highest return of an episode
    pareto: tuple[np.ndarray, ...]  # records of the Pareto front in speed, memory and accuracy


class RecordedWorld(Spaces):
    """A table, the fitness of its records and the rules that all lanes share. Subclasses say what actions do."""

    name: ClassVar[str] = ""
    terms: ClassVar[tuple[str, ...]] = TERMS
    live: ClassVar[bool] = False  # whether candidates are measured while stepping
    module_of: np.ndarray  # [R] int64, the module of each root
    first: np.ndarray  # [R] int64, what an episode's third column starts as
    pool: np.ndarray  # [n] int64, roots that episodes start at
    goal: np.ndarray  # [R] float64, the fitness from which an end counts as success
    solution: Solution
    layout: ObservationLayout

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
        self.table = table if isinstance(table, SelectionTable) else load_table(table)
        self.split = one_of("split", split, (*SPLITS, "all"))
        self.weights = weights_of(objective_weights)
        self.cost = number("evaluation_cost", evaluation_cost, low=0)
        self.illegal_penalty = number("illegal_penalty", illegal_penalty, low=0)
        self.max_iterations = whole("max_iterations", max_iterations, low=2)
        self.good_enough = threshold("performance_threshold", performance_threshold, np.inf)
        self.tolerance = number("tolerance", tolerance, low=0)
        self.zones = zones_of(reward_zones)
        self.score = scores(*self.table.metrics.T)  # [N, 3]
        self.fitness = fitness(self.score, self.weights)  # [N]
        self.base_fitness = float(fitness(BASE, self.weights))

    def starts(self) -> np.ndarray:
        """Returns the roots of the split ``[n] int64``; "all" takes every module."""
        there = np.array([self.split in ("all", module.split) for module in self.table.modules])
        pool = np.flatnonzero(there[self.module_of])
        if not len(pool):
            raise ConfigError(f"the recorded table has no module in split {self.split!r}; choose another split")
        return pool

    def lanes(self, count: int, *, max_steps: int | None = None) -> Lanes:
        """Returns so many lanes of this world; `max_steps` truncates episodes earlier than `max_iterations` does."""
        return Lanes(self, count, max_steps=max_steps)

    # ---------------------------------------------------------------- stepping

    def advance(self, lanes: Lanes, actions: np.ndarray, outcome: LaneStep, *, next_step_reset: bool) -> None:
        """Moves every lane one step and writes what happened into the outcome."""
        raise NotImplementedError

    def observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Returns fresh observations of lanes in these states."""
        raise NotImplementedError

    def record_after(self, state: np.ndarray, action: int) -> int:
        """Returns the record that an action measures in a state, or -1 where it measures none."""
        raise NotImplementedError

    def blank(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns memory for the observations ``[B, D] float32`` and masks ``[B, K] int8`` of so many lanes."""
        return np.empty((count, len(self.low)), np.float32), np.empty((count, self.num_actions), np.int8)

    # ---------------------------------------------------------------- states

    @cached_property
    def origin(self) -> int:
        """A number for this world, which the states of its lanes carry."""
        modules = [module.title for module in self.table.modules]
        return origin_of([self.name, self.num_actions, self.max_iterations, modules], self.module_of)

    def stands(self, state: np.ndarray) -> np.ndarray:
        """Returns which rows ``[B, STATE]`` of lanes, at sound roots, name what their root has ``[B] bool``."""
        raise NotImplementedError

    def term_weights(self, places: np.ndarray) -> np.ndarray:
        """Returns what each term of the vector reward counts in the scalar one ``[B, T]``: the same everywhere."""
        return np.tile([*self.weights.tolist(), 1.0], (len(places), 1))

    # ---------------------------------------------------------------- words

    def drawing(self) -> Any:
        """Returns the module that draws a lane: `as_text` and `as_image` of a world and a state."""
        return render

    def candidate_name(self, record: int) -> str:
        """Returns the name of a record's candidate."""
        return self.table.name(record)

    def action_names(self, state: np.ndarray) -> list[str]:
        """Returns what each action chooses in a state; "" where it chooses nothing."""
        raise NotImplementedError

    def measured(self, state: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
        """Returns name, metrics and fitness of what the episode has measured so far."""
        raise NotImplementedError

    def title(self, root: int) -> str:
        """Returns the module of a root."""
        return self.table.modules[int(self.module_of[root])].title

    def standing(self, state: np.ndarray) -> str:
        """Returns the candidate that an episode would end with."""
        raise NotImplementedError

    def text(self, state: np.ndarray) -> str:
        """Returns the episode in words: the module, and the candidate it would end with."""
        return f"{self.title(int(state[ROOT]))}: {self.standing(state)}"


def threshold(name: str, value: float | None, off: float) -> float:
    """Returns a threshold, or the number that means none."""
    return off if value is None else number(name, value, low=0)
