"""From ratios to one number: fitness = 0.4 speed + 0.3 memory + 0.3 accuracy, each score in [0, 1].

A ratio r (of the original's time or bytes to the candidate's) scores ``r / (1 + r)``: 0.5 is the original, 2x is
0.667, 4x is 0.8, half is 0.333. It is bounded, so no gain in memory can pay for any loss of accuracy, and symmetric in
log r. Accuracy is its own score. The original's fitness under the default weights is 0.65.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from treegym.checks import number
from treegym.errors import ConfigError, require, suggest

__all__ = [
    "DEFAULT_WEIGHTS", "OBJECTIVES", "ZONES", "fitness", "hypervolume", "pareto_front", "scores", "weights_of",
    "zones_of",
]  # fmt: skip

OBJECTIVES = ("speed", "memory", "accuracy")
DEFAULT_WEIGHTS = {"speed": 0.4, "memory": 0.3, "accuracy": 0.3}

# Reward zones (ORZ): harm counts twice, gains below what noise can make count half, large gains count more.
ZONES = ((-1.0, -2.0), (0.0, 0.0), (0.01, 0.005), (0.05, 0.05), (0.1, 0.12), (1.0, 2.0))


def weights_of(weights: Mapping[str, float] | None) -> np.ndarray:
    """Returns the weights ``[3] float64`` in the order of `OBJECTIVES`, scaled to sum to 1; None: the defaults."""
    chosen = DEFAULT_WEIGHTS if weights is None else weights
    for name, value in chosen.items():
        if name not in OBJECTIVES:
            raise ConfigError(f"there is no objective {name!r}.{suggest(name, OBJECTIVES)}")
        number(f"the weight of {name!r}", value, low=0)
    row = np.array([float(chosen.get(name, 0.0)) for name in OBJECTIVES])
    if row.sum() <= 0:
        raise ConfigError("all objective weights are 0; give at least one of speed, memory, accuracy")
    return row / row.sum()


def scores(speed: np.ndarray | float, memory: np.ndarray | float, accuracy: np.ndarray | float) -> np.ndarray:
    """Returns scores ``[..., 3] float64`` in [0, 1] of ratios and accuracies."""
    s, m, a = np.broadcast_arrays(np.asarray(speed, float), np.asarray(memory, float), np.asarray(accuracy, float))
    return np.stack([s / (1 + s), m / (1 + m), np.clip(a, 0.0, 1.0)], axis=-1)


def fitness(values: np.ndarray | Sequence[float], weights: np.ndarray) -> np.ndarray:
    """Returns the weighted sum of scores ``[..., 3]``."""
    return np.asarray(values, float) @ weights


def zones_of(zones: Sequence[Sequence[float]] | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the knots of a piecewise linear map from reward to shaped reward, or None where there is none."""
    if zones is None:
        return None
    knots = np.asarray(zones, float)
    if knots.ndim != 2 or knots.shape[1] != 2 or len(knots) < 2 or not np.isfinite(knots).all():
        raise ConfigError(f"reward_zones is {zones!r}; expected pairs [reward, shaped reward], at least two")
    if (np.diff(knots[:, 0]) <= 0).any() or (np.diff(knots[:, 1]) < 0).any():
        raise ConfigError("reward_zones must rise: a larger reward may never be shaped into a smaller one")
    return knots[:, 0].copy(), knots[:, 1].copy()


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
