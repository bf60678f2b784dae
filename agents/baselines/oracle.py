"""The oracle: the exact optimum, known because the world is closed. An upper bound, never a competitor."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.agents.baselines.base import Planning
from treegym.agents.play.native_worlds import LanesWorld
from treegym.agents.play.standing import Place
from treegym.errors import ConfigError

__all__ = ["Oracle"]


class Oracle(Planning):
    """Follows the optimal action of every state.

    Args:
        env: the environment.
        goal: "return": the highest return; "correct": a shortest way to a correct end, where there is one (token
            trees).
    """

    def __init__(self, env: Any, *, goal: str = "return", seed: int | None = None, **kwargs: Any) -> None:
        if goal not in ("return", "correct"):
            raise ConfigError(f"goal must be 'return' or 'correct', got {goal!r}")
        self.goal = goal
        super().__init__(env, seed=seed, **kwargs)

    def _enter_world(self) -> None:
        self._choices: dict[int, np.ndarray] = {}
        inner = self.world.lanes.world if isinstance(self.world, LanesWorld) else None
        if inner is None or not hasattr(inner, "solution"):
            raise ConfigError("the exact optimum is known only of worlds that are closed, and this one is not")

    def plan(self, place: Place, rows: dict[str, np.ndarray]) -> np.ndarray:
        world: Any = place.world
        inner = world.lanes.world
        state = world.lanes.places(place.lanes)
        if world.tree_world is not None:
            return np.maximum(self._choice(inner)[state], 0)
        choose = _candidate if hasattr(inner, "candidates") else _strategy
        return np.array([choose(inner, row) for row in state], np.int64)

    def _choice(self, world: Any) -> np.ndarray:
        """Returns the optimal child of every node ``[N] int32``."""
        if id(world) not in self._choices:
            solution = world.solution()
            choice = solution.best_child
            if self.goal == "correct":
                choice = np.where(solution.shortest_child >= 0, solution.shortest_child, choice)
            self._choices[id(world)] = choice
        return self._choices[id(world)]


def _candidate(world: Any, state: np.ndarray) -> int:
    """Returns the action that measures or commits to the best candidate (the last one keeps the original)."""
    root = int(state[0])
    found = np.flatnonzero(world.candidates[root] == world.solution.best[root])
    worth = world.solution.value[root] > 0
    return int(found[0]) if len(found) and worth else world.num_actions - 1


def _strategy(world: Any, state: np.ndarray) -> int:
    """Returns the strategy to add next on a way to the best ensemble, or the action that stops."""
    from treegym.envs.selection.transition import NODE, ROOT

    here, best = int(state[NODE]), int(world.solution.best[int(state[ROOT])])
    if here == best:
        return world.num_actions - 1
    wanted = np.flatnonzero(world.table.contains[best] & ~world.table.contains[here])
    for strategy in wanted.tolist():
        if _leads_to(world, int(world.following[here, strategy]), best):
            return strategy
    return world.num_actions - 1


def _leads_to(world: Any, here: int, best: int) -> bool:
    """Returns whether an ensemble can still be grown into the best one."""
    if here < 0:
        return False
    missing = np.flatnonzero(world.table.contains[best] & ~world.table.contains[here])
    return here == best or any(_leads_to(world, int(world.following[here, s]), best) for s in missing.tolist())
