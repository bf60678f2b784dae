"""Soft overlong punishment: long answers cost more the nearer they come to the limit."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.rewards.base import Request, Term
from treegym.tree.token_tree import TokenTree

__all__ = ["SoftOverlong", "soft_overlong"]


def soft_overlong(length: np.ndarray, *, limit: int, cushion: int) -> np.ndarray:
    """Returns DAPO's length penalty (arXiv 2503.14476, equation 13), in [-1, 0].

    0 up to ``limit - cushion``; then ``((limit - cushion) - length) / cushion``; -1 beyond the limit.
    """
    return np.clip((limit - cushion - np.asarray(length, dtype=np.float64)) / cushion, -1.0, 0.0)


class SoftOverlong(Term):
    """The penalty at the end or where the budget cuts off, by the length reached.

    Args:
        limit: tokens from which the penalty is full.
        cushion: tokens before the limit over which it rises.
    """

    kind = "soft_overlong"
    deployable = True
    at_truncation = True
    bounds = (-1.0, 0.0)

    def __init__(self, *, limit: int = 48, cushion: int = 12, **common: Any) -> None:
        super().__init__(**common)
        if not 1 <= cushion <= limit:
            raise ConfigError(
                f"reward term {self.name!r}: cushion is {cushion} and limit {limit}; 1 <= cushion <= limit was expected"
            )
        self.limit, self.cushion = limit, cushion

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        return soft_overlong(np.asarray(source.depth)[asked.nodes], limit=self.limit, cushion=self.cushion)
