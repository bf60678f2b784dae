"""Shortest-path penalty: a right answer that took longer than it had to."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.rewards.base import Request, Scored, Term
from treegym.rewards.terms.verifier import Verifier
from treegym.tree.token_tree import TokenTree

__all__ = ["ShortestPath", "shortest_right_depth"]


def shortest_right_depth(source: TokenTree) -> np.ndarray:
    """Returns the fewest tokens in which each root's question is answered rightly, ``[R] float64``, inf if never.

    Right ends are those with a stored verdict of at least one half.
    """
    right = np.nonzero(np.nan_to_num(np.asarray(source.verdict), nan=0.0) >= 0.5)[0]
    shortest = np.full(len(source.root_node), np.inf)
    np.minimum.at(shortest, np.asarray(source.root_of(right)), np.asarray(source.depth)[right].astype(np.float64))
    return shortest


class ShortestPath(Term):
    """0, or at a right end a penalty for every token beyond the shortest right path; wrong ends are not touched.

    Args:
        unit: ``"relative"``: -(length - shortest) / shortest, at least -1; ``"tokens"``: -(length - shortest).
    """

    kind = "shortest_path"

    def __init__(self, *, unit: str = "relative", **common: Any) -> None:
        super().__init__(**common)
        if unit not in ("relative", "tokens"):
            raise ConfigError(f"reward term {self.name!r}: unit is 'relative' or 'tokens', not {unit!r}")
        self.unit = unit
        self.bounds = (-1.0, 0.0) if unit == "relative" else self.bounds
        self._verifier = Verifier(name="verifier")
        self._known: tuple[TokenTree, int, np.ndarray] | None = None  # of the tree asked about last, at its size then

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        if self._known is None or self._known[0] is not source or self._known[1] != source.size:
            self._known = (source, source.size, shortest_right_depth(source))
        best = self._known[2][np.asarray(source.root_of(asked.nodes))]
        verdict = self._verifier.values(source, asked)
        right = (verdict.values if isinstance(verdict, Scored) else verdict) >= 0.5
        extra = np.where(right & np.isfinite(best), np.asarray(source.depth)[asked.nodes] - best, 0.0)
        extra = np.maximum(extra, 0.0)  # a detected end may even be shorter than the shortest end stored
        return -extra if self.unit == "tokens" else -np.minimum(extra / np.maximum(best, 1.0), 1.0)
