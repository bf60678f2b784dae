"""Diversity within a group: how different the answers to one prompt are. Scored over trajectories, not nodes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.rewards.base import Request, Term
from treegym.tree.token_tree import TokenTree

__all__ = ["Diversity", "diversity"]


def diversity(paths: Sequence[Sequence[int]], groups: Sequence[Hashable], *, n: int = 2) -> np.ndarray:
    """Returns for each path 1 minus its mean n-gram overlap with the others of its group, ``[B] float32`` in [0, 1].

    The overlap of two paths is the Jaccard index of their sets of n-grams (paths shorter than n count as one gram).
    A path alone in its group has nothing to differ from: 0, so that it is not rewarded for that.
    """
    if len(paths) != len(groups):
        raise ConfigError(f"{len(paths)} paths and {len(groups)} groups came; one group a path was expected")
    grams = [_grams(path, n) for path in paths]
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    result = np.zeros(len(paths), np.float32)
    for inside in members.values():
        if len(inside) < 2:
            continue
        for i in inside:
            overlap = sum(_jaccard(grams[i], grams[j]) for j in inside if j != i)
            result[i] = 1.0 - overlap / (len(inside) - 1)
    return result


def _grams(path: Sequence[int], n: int) -> frozenset[tuple[int, ...]]:
    tokens = tuple(int(token) for token in path)
    return frozenset(tokens[i : i + n] for i in range(max(1, len(tokens) - n + 1)))


def _jaccard(left: frozenset[Any], right: frozenset[Any]) -> float:
    return len(left & right) / len(left | right)


class Diversity(Term):
    """In a tree's table this is 0 everywhere; agents add `treegym.rewards.group_bonus` to finished groups.

    Args:
        n: length of the n-grams compared.
    """

    kind = "diversity"
    deployable = True
    scope = "group"
    bounds = (0.0, 1.0)

    def __init__(self, *, n: int = 2, **common: Any) -> None:
        super().__init__(**common)
        if n < 1:
            raise ConfigError(f"reward term {self.name!r}: n is {n}; a whole number of at least 1 was expected")
        self.n = n

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        return np.zeros(len(asked.nodes))

    def group_values(self, paths: Sequence[Sequence[int]], groups: Sequence[Hashable]) -> np.ndarray:
        """Returns one value per path, ``[B] float32``."""
        return diversity(paths, groups, n=self.n)
