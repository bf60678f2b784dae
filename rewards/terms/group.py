"""Group-scope terms: what a reward adds to finished trajectories once their whole group is known."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from treegym.rewards.compose import Reward

__all__ = ["GroupTerm", "group_bonus"]


@runtime_checkable
class GroupTerm(Protocol):
    """A term that scores paths by comparing them with their group."""

    name: str

    def group_values(self, paths: Sequence[Sequence[int]], groups: Sequence[Hashable]) -> np.ndarray:
        """Returns one value a path, ``[B] float32``."""
        ...


def group_bonus(reward: Reward, paths: Sequence[Sequence[int]], groups: Sequence[Hashable]) -> np.ndarray:
    """Returns what the group-scope terms of a reward add to the last step of each trajectory, ``[B] float32``.

    Args:
        reward: any reward; zeros come back when it has no group-scope terms.
        paths: token ids of each trajectory.
        groups: which group (root) each belongs to.
    """
    shares = reward.part.weights(1.0)
    bonus = np.zeros(len(paths), np.float32)
    for term in reward.part.terms():
        if term.scope == "group" and isinstance(term, GroupTerm) and shares[term.name] != 0.0:
            bonus += np.float32(shares[term.name]) * term.group_values(paths, groups)
    return bonus
