"""Openings of random moves: games of self-play that begin where good play alone would never get.

Two players who play well repeat a few games; what their networks say of all other positions is then a guess, and those
are what an opponent of another kind leads to. Letters: B lanes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from treegym.agents.masking import mask_of
from treegym.agents.play.world import PlayStep, World

__all__ = ["play_openings"]


def play_openings(
    world: World,
    which: np.ndarray,
    share: float,
    longest: int,
    rng: np.random.Generator,
    on_step: Callable[[int, PlayStep], None],
) -> np.ndarray:
    """Plays up to `longest` random legal moves in about `share` of the lanes of ``which [B] bool``, just reset.

    Games that end by them begin anew without an opening. Returns how many were played in each lane ``[B] int64``.
    """
    lanes, actions = world.num_envs, int(world.action_space.n)
    left = np.where(which & (rng.random(lanes) < share), rng.integers(longest + 1, size=lanes), 0)
    played = left.copy()
    while (left > 0).any():
        active = left > 0
        legal = mask_of(world.observe(), actions)
        moves = np.where(legal, rng.random((lanes, actions)), -1.0).argmax(1)
        outcome = world.step(moves, active)
        left[active] -= 1
        ended = active & (outcome.terminated | outcome.truncated)
        if ended.any():
            left[ended] = played[ended] = 0
            world.reset(ended, seed=int(rng.integers(2**31)))
        on_step(int(active.sum()), outcome)
    return played
