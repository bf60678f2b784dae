"""Lanes: the state of a batch of episodes in one world. The single environment is one lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from treegym.envs.selection import transition
from treegym.envs.selection.transition import Episodes, Outcome
from treegym.envs.states import ORIGIN, check_state
from treegym.errors import ConfigError

__all__ = ["Lanes"]


class Lanes:
    """B episodes. Where an episode starts is drawn from the lane's key and its episode number, nothing else."""

    def __init__(self, world: Any, count: int, *, max_steps: int | None = None) -> None:
        self.world = world
        self.limit = world.max_iterations if max_steps is None else min(world.max_iterations, max_steps)
        self.count = count
        self.place = np.zeros((count, transition.STATE), np.int64)
        self.done = np.ones(count, bool)
        self.key = np.zeros(count, np.uint64)
        self.episode = np.zeros(count, np.int64)
        self.episodes = Episodes(self.place, self.done, self.key, self.episode)  # views, for the kernels
        self._everyone = np.ones(count, bool)
        self._unforced = np.full(count, -1, np.int64)

    @property
    def root(self) -> np.ndarray:
        return self.place[:, transition.ROOT]

    def seed(self, keys: np.ndarray) -> None:
        """Gives every lane its key ``[B] uint64``: the whole of its randomness."""
        self.key[:] = keys
        self.episode[:] = 0

    def begin(self, which: np.ndarray | None = None, roots: np.ndarray | None = None) -> None:
        """Starts episodes in the lanes of `which` ``[B] bool``, at `roots` ``[B]`` where those are not -1."""
        if roots is not None:
            last = len(self.world.module_of) - 1
            bad = (roots < -1) | (roots > last)
            if bad.any():
                raise ConfigError(f"root {int(roots[bad][0])} is out of range; roots are 0 to {last}")
        transition.begin(
            self._everyone if which is None else which, self._unforced if roots is None else roots,
            self.world.pool, self.world.first, *self.episodes,
        )  # fmt: skip

    def step(self, actions: np.ndarray, *, next_step_reset: bool) -> tuple[Outcome, dict[str, np.ndarray]]:
        """Moves every lane one step and returns the outcome and fresh observations."""
        return self.advance(actions, next_step_reset=next_step_reset), self.observe()

    def advance(self, actions: np.ndarray, *, next_step_reset: bool) -> Outcome:
        """Moves every lane one step; lanes that are done begin anew (``next_step_reset``) or stand still."""
        flags = [np.zeros(self.count, bool) for _ in range(4)]
        outcome = Outcome(np.zeros(self.count), np.zeros((self.count, 4), np.float32), *flags)
        self.world.advance(self, actions, outcome, next_step_reset=next_step_reset)
        if self.world.zones is not None:
            outcome.reward[:] = np.interp(outcome.reward, *self.world.zones)
        return outcome

    def observe(self, lanes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns fresh observations of some lanes ``[b] int``; None: all."""
        return self.world.observe(self.place if lanes is None else self.place[lanes])

    def places(self, lanes: np.ndarray) -> np.ndarray:
        """Returns where some lanes stand ``[b, STATE] int64``."""
        return self.place[lanes]

    def placed(self, places: np.ndarray) -> Self:
        """Returns fresh lanes that stand at these places."""
        lanes = type(self)(self.world, len(places))
        lanes.place[:], lanes.done[:] = places, False
        return lanes

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
