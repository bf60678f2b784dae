"""Pareto fronts and hypervolumes of scores that are to be as large as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treegym.errors import require

__all__ = ["hypervolume", "pareto_front"]


def pareto_front(scores: np.ndarray) -> np.ndarray:
    """Returns the positions of rows ``[n, d]`` that no other row dominates (at least as good in all, better in one)."""
    at_least = np.all(scores[None] >= scores[:, None], axis=-1)  # [i, j]: j is as good as i everywhere
    better = np.any(scores[None] > scores[:, None], axis=-1)
    return np.flatnonzero(~np.any(at_least & better, axis=1))


def hypervolume(scores: np.ndarray, reference: Sequence[float] = (0.0, 0.0, 0.0)) -> float:
    """Returns the volume that rows ``[n, d]`` dominate above a reference point (computed by pymoo)."""
    hv = require("pymoo.indicators.hv", extra="selection", purpose="the hypervolume")
    if not len(scores):
        return 0.0
    return float(hv.HV(ref_point=-np.asarray(reference, float))(-np.asarray(scores, float)))
