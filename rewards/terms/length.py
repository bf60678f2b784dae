"""Length: what every token costs."""

from __future__ import annotations

import numpy as np

from treegym.rewards.base import Request, Term
from treegym.tree.token_tree import TokenTree

__all__ = ["Length"]


class Length(Term):
    """1 for every token entered, the end token too; the return is the length. Give it a small negative weight."""

    kind = "length"
    deployable = True
    scope = "step"
    bounds = (1.0, 1.0)

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        return np.ones(len(asked.nodes))
