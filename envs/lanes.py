"""The contract of lanes: B episodes of one world, stepped together. Agents and planners drive every world of ours so.

Letters: B lanes, b some of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

__all__ = ["Lanes", "Stepped"]


class Stepped(Protocol):
    """What a step did in every lane; fresh arrays."""

    @property
    def reward(self) -> np.ndarray: ...  # [B] float64
    @property
    def terminated(self) -> np.ndarray: ...  # [B] bool
    @property
    def truncated(self) -> np.ndarray: ...  # [B] bool
    @property
    def illegal(self) -> np.ndarray: ...  # [B] bool
    @property
    def success(self) -> np.ndarray: ...  # [B] bool


@runtime_checkable
class Lanes(Protocol):
    """B episodes. Where an episode starts is drawn from the lane's key and its episode number, nothing else."""

    world: Any
    count: int  # B
    done: np.ndarray  # [B] bool, episodes that have ended
    key: np.ndarray  # [B] uint64, 0 until seeded

    def seed(self, keys: np.ndarray) -> None:
        """Gives every lane its key ``[B] uint64``: the whole of its randomness."""
        ...

    def begin(self, which: np.ndarray | None = None, roots: np.ndarray | None = None) -> None:
        """Starts episodes in the lanes of `which` ``[B] bool``, at `roots` ``[B]`` where those are not -1."""
        ...

    def step(self, actions: np.ndarray, *, next_step_reset: bool) -> tuple[Stepped, dict[str, np.ndarray]]:
        """Moves every lane one step and returns the outcome and fresh observations.

        Lanes that are done begin anew (``next_step_reset``) or stand still.
        """
        ...

    def advance(self, actions: np.ndarray, *, next_step_reset: bool) -> Stepped:
        """Does the same and looks at nothing: for planners that do not need observations."""
        ...

    def observe(self, lanes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns fresh observations of some lanes ``[b] int``; None: all."""
        ...

    def places(self, lanes: np.ndarray) -> np.ndarray:
        """Returns where some lanes stand ``[b, ...] int64``: what planners take for a state."""
        ...

    def placed(self, places: np.ndarray) -> Self:
        """Returns fresh lanes of the same world that stand at these places."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Returns a copy of all state, to go back to with `restore`."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes back to a state; raises ConfigError for one of another number of lanes or another world."""
        ...
