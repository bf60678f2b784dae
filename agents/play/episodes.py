"""Episodes played to their ends, side by side: the one loop behind collecting, self-play and evaluation.

Letters: B lanes, N steps, E episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from treegym.agents.play.world import PlayStep, World
from treegym.errors import DataError

__all__ = ["Episodes", "Stage", "begin", "play"]

STEP_LIMIT = 100_000  # an environment that never ends an episode is an error, not a hang


class Stage(Protocol):
    """What the loop needs of a world."""

    num_envs: int

    def step(self, actions: np.ndarray, active: np.ndarray) -> PlayStep:
        """Steps the lanes of ``active [B] bool``."""
        ...


class Episodes(NamedTuple):
    """One whole episode of each of the first E lanes; steps are in order, one episode after the other."""

    order: np.ndarray  # [N] int64, which of the steps in the order they were taken each of these is
    rewards: np.ndarray  # [N] float64
    lengths: np.ndarray  # [E] int64
    terminated: np.ndarray  # [E] bool
    truncated: np.ndarray  # [E] bool, cut off and not terminated
    success: np.ndarray  # [E] float32: 1, 0, or NaN where the env does not say

    @property
    def returns(self) -> np.ndarray:
        """The undiscounted return of each episode ``[E] float64``."""
        episodes = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return np.bincount(episodes, self.rewards, minlength=len(self.lengths))

    def ordered(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Returns what each call of `choose` noted of the lanes it was asked about, as rows of steps ``[N, ...]``."""
        return np.concatenate(parts)[self.order]


def begin(world: World, size: int, roots: np.ndarray | None, seed: int | np.ndarray) -> None:
    """Resets all lanes, the first `size` to ``roots [size]`` if given; lanes of equal ``seed [size]`` start alike."""

    def padded(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.full(world.num_envs - size, values[0], np.int64)])

    world.reset(
        np.ones(world.num_envs, np.bool_),
        roots=None if roots is None else padded(roots),
        seed=padded(seed) if isinstance(seed, np.ndarray) else seed,
    )


def play(
    stage: Stage,
    size: int,
    choose: Callable[[np.ndarray], np.ndarray],
    stepped: Callable[[np.ndarray, np.ndarray, PlayStep], None] | None = None,
) -> Episodes:
    """Plays the episodes that the first `size` lanes have just begun to their ends.

    Args:
        stage: the world, its lanes reset.
        size: E, how many lanes count; the others rest.
        choose: given the lanes that are still playing ``[b] int64``, returns an action for each ``[b]``.
        stepped: called after every step with the lanes that took it ``[b] int64``, which of all lanes ended by it
            ``[B] bool``, and what came of it.
    """
    lanes = stage.num_envs
    active = np.arange(lanes) < size
    actions = np.zeros(lanes, np.int64)
    terminated, truncated = np.zeros(lanes, np.bool_), np.zeros(lanes, np.bool_)
    success = np.full(lanes, np.nan, np.float32)
    lane_of: list[np.ndarray] = []
    reward_of: list[np.ndarray] = []
    while active.any():
        if len(lane_of) == STEP_LIMIT:
            raise DataError(f"the environment did not end an episode within {STEP_LIMIT} steps; give it a time limit")
        who = np.flatnonzero(active)
        actions[who] = choose(who)
        outcome = stage.step(actions, active)
        lane_of.append(who)
        reward_of.append(outcome.reward[who])
        ended = active & (outcome.terminated | outcome.truncated)
        terminated |= ended & outcome.terminated
        truncated |= ended & ~outcome.terminated
        if outcome.success is not None:
            success[ended] = outcome.success[ended]
        active &= ~ended
        if stepped is not None:
            stepped(who, ended, outcome)
    lane = np.concatenate(lane_of) if lane_of else np.zeros(0, np.int64)
    order = np.argsort(lane, kind="stable")
    rewards = np.concatenate(reward_of)[order] if lane_of else np.zeros(0)
    lengths = np.bincount(lane, minlength=size).astype(np.int64)
    return Episodes(order, rewards, lengths, terminated[:size], truncated[:size], success[:size])
