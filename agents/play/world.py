"""A world: a batch of lanes that end when their episode ends and start again only when told to.

Collecting has one form, whatever the environment. Letters: B lanes, K actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from treegym.errors import ConfigError

__all__ = ["PlayStep", "Rows", "Seed", "World", "discrete", "roots_of", "rows_of", "scalar_reward", "take"]

Rows = dict[str, np.ndarray]  # each [B, ...]
Seed = int | np.ndarray | None  # of all lanes together, or one for each of them [B] int64


class PlayStep(NamedTuple):
    """What a step of all lanes led to."""

    reward: np.ndarray  # [B] float64
    terminated: np.ndarray  # [B] bool
    truncated: np.ndarray  # [B] bool
    success: np.ndarray | None  # [B] float32: 1 correct, 0 wrong, NaN where the env does not say; None: it never says
    info: Mapping[str, Any]  # as the env gave it, with arrays over lanes


class World(Protocol):
    """A batch of lanes."""

    num_envs: int
    observation_space: spaces.Space  # of one lane
    action_space: spaces.Discrete
    env: Any  # what it was made of

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: Seed = None) -> None:
        """Starts an episode in the lanes of ``which [B] bool``, at ``roots [B] int`` if given.

        Lanes whose own ``seed [B] int64`` are equal start alike; one seed for all makes them differ.
        """
        ...

    def step(self, actions: np.ndarray, active: np.ndarray) -> PlayStep:
        """Steps the lanes of ``active [B] bool``; the state of the others afterwards is undefined."""
        ...

    def observe(self, lanes: np.ndarray | None = None, keys: tuple[str, ...] | None = None) -> Rows:
        """Returns what ``lanes [b] int`` (None: all) see now under keys (None: all), in arrays that no step changes."""
        ...

    def roots(self) -> np.ndarray | None:
        """Returns the roots that episodes can be started at ``[R] int64``, or None if one cannot choose."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Returns all it takes to go back there, for a checkpoint; empty if that is not possible."""
        ...

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes back to where `state` was taken."""
        ...


def take(rows: Rows, lanes: np.ndarray | None, keys: tuple[str, ...] | None = None) -> Rows:
    """Returns the rows of some lanes, under some keys."""
    if keys is not None:
        rows = {key: array for key, array in rows.items() if key in keys}
    return rows if lanes is None else {key: array[lanes] for key, array in rows.items()}


def rows_of(observation: Any) -> Rows:
    """Returns a batched observation as a dict of arrays."""
    return dict(observation) if isinstance(observation, Mapping) else {"observations": observation}


def discrete(space: spaces.Space) -> spaces.Discrete:
    if not isinstance(space, spaces.Discrete) or space.start != 0:
        raise ConfigError(f"agents here choose among children: the action space must be Discrete from 0, got {space}")
    return space


def roots_of(env: Any) -> np.ndarray | None:
    """Returns ``env.roots``, or the pool of a token tree's split."""
    roots = getattr(env, "roots", None)
    if roots is None:
        roots = getattr(getattr(env, "world", None), "pool", None)
    return None if roots is None else np.asarray(roots, np.int64)


def scalar_reward(reward: Any) -> float:
    """Returns the reward as one number; a vector of objectives is summed."""
    return float(reward) if np.ndim(reward) == 0 else float(np.sum(reward))
