"""Lanes: the state of a batch of episodes in one world. The single environment is one lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from treegym.envs.selection import transition
from treegym.envs.selection.transition import Episodes
from treegym.envs.states import ORIGIN, check_state
from treegym.envs.world_lanes import LaneStep, WorldLanes
from treegym.errors import ConfigError

__all__ = ["Lanes"]


class Lanes(WorldLanes):
    """Lanes of a selection or pipeline world."""

    def __init__(self, world: Any, count: int, *, max_steps: int | None = None) -> None:
        super().__init__(world, count, width=transition.STATE, roots=len(world.module_of), max_steps=max_steps)
        self.episodes = Episodes(self.place, self.done, self.key, self.episode)  # views, for the kernels

    def _begin(self, which: np.ndarray, roots: np.ndarray) -> None:
        transition.begin(which, roots, self.world.pool, self.world.first, *self.episodes)

    def advance(self, actions: np.ndarray, *, next_step_reset: bool) -> LaneStep:
        """Moves every lane one step; lanes that are done begin anew (``next_step_reset``) or stand still."""
        outcome = self._blank_step()
        self.world.advance(self, actions, outcome, next_step_reset=next_step_reset)
        if self.world.zones is not None:
            outcome.reward[:] = np.interp(outcome.reward, *self.world.zones)
        return outcome

    def state(self) -> dict[str, np.ndarray]:
        """Returns a copy of all state, to go back to with `restore`."""
        state = {name: rows.copy() for name, rows in self.episodes._asdict().items()}
        return {**state, ORIGIN: np.full(self.count, self.world.origin, np.int64)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes back to a state; raises for one of another number of lanes, another world or no sound place."""
        check_state(state, self.state())
        rows = state["state"]
        roots, steps = rows[:, transition.ROOT], rows[:, transition.STEPS]
        if roots.min(initial=0) < 0 or roots.max(initial=0) >= len(self.world.module_of):
            raise ConfigError("this state stands at a root that is not there; it comes from another table")
        counts = rows[:, [transition.STEPS, transition.STALE]]
        if counts.min(initial=0) < 0 or steps.max(initial=0) > self.limit or not self.world.stands(rows).all():
            raise ConfigError("this state has measured what its root does not have; it comes from another table")
        for name, rows in self.episodes._asdict().items():
            rows[:] = state[name]
