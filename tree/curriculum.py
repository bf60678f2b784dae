"""Which prompts are worth practising on: those that the primary solves now and then, not always and not never.

An answer that is right with chance p teaches in proportion to its variance, p (1 - p), which is largest in the middle:
where a prompt never or always succeeds, the advantages of a group are all zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError, suggest

__all__ = ["CURRICULA", "practised", "primary_success"]

CURRICULA = ("middle", "sample")
COPIES = 16  # how often the most instructive prompt comes for one that teaches nothing

Tree = Any  # a TokenTree; a world that is given one hands it on


def practised(success: np.ndarray, how: str) -> np.ndarray:
    """Returns which prompts to practise on ``[P] int64``, by the primary's success at each ``[R]``.

    Args:
        success: chances, or shares of samples, that the primary is right.
        how: "middle" is the half whose success is nearest to one half, the nearest first. "sample" is all of them in
            their order, each between once and 16 times, in proportion to p (1 - p): drawing one evenly is then drawing
            prompts by what they teach.
    """
    if how not in CURRICULA:
        raise ConfigError(f"curriculum is {how!r}.{suggest(str(how), CURRICULA)}")
    success = np.asarray(success, np.float64)
    if success.ndim != 1 or not len(success) or not ((success >= 0) & (success <= 1)).all():
        raise ConfigError("a curriculum needs the primary's success at every prompt, numbers from 0 to 1")
    if how == "middle":
        return np.argsort(np.abs(success - 0.5), kind="stable")[: (len(success) + 1) // 2]
    copies = 1 + np.rint((COPIES - 1) * 4.0 * success * (1.0 - success)).astype(np.int64)
    return np.repeat(np.arange(len(success)), copies)


def primary_success(tree: Tree, roots: np.ndarray) -> np.ndarray:
    """Returns the chance that the primary, walking a closed tree by its own odds, ends right ``[R] float64``."""
    from treegym.tree.values import values

    right = (np.nan_to_num(np.asarray(tree.verdict, np.float64)) >= 0.5).astype(np.float64)
    return np.clip(values(tree, "primary", reward=right).value[tree.root_node[roots]], 0.0, 1.0)
