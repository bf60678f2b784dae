"""Lanes: the state of a batch of episodes in a selection or pipeline world. The single environment is one lane."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from treegym.envs.selection import transition
from treegym.errors import ConfigError

__all__ = ["Lanes", "Outcome"]

_FIELDS = ("state", "done", "key", "episode")


class Outcome(NamedTuple):
    """What a step did in every lane; fresh arrays."""

    reward: np.ndarray  # [B] float64
    vector: np.ndarray  # [B, 4] float32
    terminated: np.ndarray  # [B] bool
    truncated: np.ndarray  # [B] bool
    illegal: np.ndarray  # [B] bool
    success: np.ndarray  # [B] bool


class Lanes:
    """B episodes. Where an episode starts is drawn from the lane's key and its episode number, nothing else."""

    def __init__(self, world: Any, count: int, *, max_steps: int | None = None) -> None:
        self.world = world
        self.limit = world.max_iterations if max_steps is None else min(world.max_iterations, max_steps)
        self.count = count
        self.state = np.zeros((count, transition.STATE), np.int64)
        self.done = np.ones(count, bool)
        self.key = np.zeros(count, np.uint64)
        self.episode = np.zeros(count, np.int64)
        self._everyone = np.ones(count, bool)
        self._unforced = np.full(count, -1, np.int64)

    @property
    def root(self) -> np.ndarray:
        return self.state[:, transition.ROOT]

    def seed(self, keys: np.ndarray) -> None:
        """Gives every lane its key ``[B] uint64``: the whole of its randomness."""
        self.key[:] = keys
        self.episode[:] = 0

    def begin(self, which: np.ndarray | None = None, roots: np.ndarray | None = None) -> None:
        """Starts episodes in the lanes of `which` ``[B] bool``, at `roots` ``[B]`` where those are not -1."""
        world = self.world
        if roots is not None:
            bad = (roots < -1) | (roots >= len(world.module_of))
            if bad.any():
                raise ConfigError(
                    f"root {int(roots[bad][0])} is out of range; roots are 0 to {len(world.module_of) - 1}"
                )
        transition.begin(
            self._everyone if which is None else which, self._unforced if roots is None else roots, world.pool,
            world.first, self.key, self.episode, self.state, self.done,
        )  # fmt: skip

    def advance(self, actions: np.ndarray, *, next_step_reset: bool) -> Outcome:
        """Moves every lane one step; lanes that are done begin anew (``next_step_reset``) or stand still."""
        flags = [np.zeros(self.count, bool) for _ in range(4)]
        outcome = Outcome(np.zeros(self.count), np.zeros((self.count, 4), np.float32), *flags)
        self.world.advance(self, actions, outcome, next_step_reset=next_step_reset)
        if self.world.zones is not None:
            outcome.reward[:] = np.interp(outcome.reward, *self.world.zones)
        return outcome

    def observe(self) -> dict[str, np.ndarray]:
        """Returns fresh observations of all lanes."""
        return self.world.observe(self.state)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns a copy of all state, to go back to with `restore`."""
        return {name: getattr(self, name).copy() for name in _FIELDS}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Goes back to a state; raises for one of another number of lanes or another world."""
        if any(name not in state or len(state[name]) != self.count for name in _FIELDS):
            raise ConfigError(f"this state is not one of {self.count} lanes; pass back what clone_state() returned")
        roots = state["state"][:, transition.ROOT]
        if roots.min(initial=0) < 0 or roots.max(initial=0) >= len(self.world.module_of):
            raise ConfigError("this state stands at a root that is not there; it comes from another table")
        for name in _FIELDS:
            getattr(self, name)[:] = state[name]
