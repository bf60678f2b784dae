"""Lanes of worlds whose episodes stand at a row of integers: what selection and compute allocation share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import numpy as np

from treegym.errors import ConfigError

__all__ = ["LaneStep", "WorldLanes"]

ROOT = 0  # the column of a place that names the root


class LaneStep(NamedTuple):
    """What a step did in every lane; fresh arrays, zeros before the step."""

    reward: np.ndarray  # [B] float64
    vector: np.ndarray  # [B, T] float32, the terms of the vector reward, in the world's units
    terminated: np.ndarray  # [B] bool
    truncated: np.ndarray  # [B] bool
    illegal: np.ndarray  # [B] bool
    success: np.ndarray  # [B] bool


class WorldLanes(ABC):
    """B episodes. Where an episode starts is drawn from the lane's key and its episode number, nothing else."""

    def __init__(self, world: Any, count: int, *, width: int, roots: int, max_steps: int | None = None) -> None:
        """Makes lanes whose places have `width` columns, in a world of so many `roots`."""
        self.world = world
        self.limit = world.max_iterations if max_steps is None else min(world.max_iterations, max_steps)
        self.count = count
        self.place = np.zeros((count, width), np.int64)
        self.done = np.ones(count, bool)
        self.key = np.zeros(count, np.uint64)
        self.episode = np.zeros(count, np.int64)
        self._last_root = roots - 1
        self._everyone = np.ones(count, bool)
        self._unforced = np.full(count, -1, np.int64)

    @property
    def root(self) -> np.ndarray:
        return self.place[:, ROOT]

    def seed(self, keys: np.ndarray) -> None:
        """Gives every lane its key ``[B] uint64``: the whole of its randomness."""
        self.key[:] = keys
        self.episode[:] = 0

    def begin(self, which: np.ndarray | None = None, roots: np.ndarray | None = None) -> None:
        """Starts episodes in the lanes of `which` ``[B] bool``, at `roots` ``[B]`` where those are not -1."""
        if roots is not None:
            bad = (roots < -1) | (roots > self._last_root)
            if bad.any():
                raise ConfigError(f"root {int(roots[bad][0])} is out of range; roots are 0 to {self._last_root}")
        self._begin(self._everyone if which is None else which, self._unforced if roots is None else roots)

    def _blank_step(self) -> LaneStep:
        flags = [np.zeros(self.count, np.bool_) for _ in range(4)]
        return LaneStep(np.zeros(self.count), np.zeros((self.count, len(self.world.terms)), np.float32), *flags)

    @abstractmethod
    def _begin(self, which: np.ndarray, roots: np.ndarray) -> None:
        """Starts episodes by the world's own kernel."""

    def step(self, actions: np.ndarray, *, next_step_reset: bool) -> tuple[Any, dict[str, np.ndarray]]:
        """Moves every lane one step and returns the outcome and fresh observations."""
        return self.advance(actions, next_step_reset=next_step_reset), self.observe()

    @abstractmethod
    def advance(self, actions: np.ndarray, *, next_step_reset: bool) -> Any:
        """Moves every lane one step; lanes that are done begin anew (``next_step_reset``) or stand still."""

    def observe(self, lanes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns fresh observations of some lanes ``[b] int``; None: all."""
        return self.world.observe(self.place if lanes is None else self.place[lanes])

    def places(self, lanes: np.ndarray) -> np.ndarray:
        """Returns where some lanes stand ``[b, width] int64``."""
        return self.place[lanes]

    def placed(self, places: np.ndarray) -> Self:
        """Returns fresh lanes that stand at these places."""
        lanes: Any = type(self)(self.world, len(places))  # type: ignore[call-arg] # a subclass knows width and roots
        lanes.place[:], lanes.done[:] = places, False
        return lanes
