"""Aggregate scores and their bootstrap intervals.

Letters: R resamples, N runs (training seeds) of one agent in one environment, T scores of each run (one, or one for
each kind of task).

A *stratum* is one environment's score matrix ``[N, T]``. A run is resampled whole, with all its scores: they share the
trained agent, so treating them as independent draws would make the intervals too narrow.
The aggregates are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(https://arxiv.org/abs/2108.13264); the code is our own, and every draw comes from the seed that was passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = [
    "AGGREGATES",
    "Interval",
    "bootstrap",
    "interquartile_mean",
    "interval_of",
    "optimality_gap",
    "pooled",
    "resample_counts",
    "student_t_cdf",
    "student_t_quantile",
]

LEVEL = 0.95
RESAMPLES = 2_000
_CHUNK = 2_000_000  # values held at once while resampling, so that memory stays flat


@dataclass(frozen=True)
class Interval:
    """A point estimate and the ends of its interval."""

    point: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of ``[..., V]`` along the last axis.

    Where a quarter of V is not whole, the values at the cut count by the fraction of them that lies inside, so the
    result moves smoothly with V (libraries that drop ``floor(V / 4)`` values a side keep up to 2/3 of five).
    """
    ordered = np.sort(values, axis=-1)
    size = ordered.shape[-1]
    edge = np.arange(size + 1, dtype=np.float64)  # [V + 1] float64, where each value's share begins and ends
    inside = np.clip(edge, size / 4, 3 * size / 4)
    return np.asarray(ordered @ (np.diff(inside) / (size / 2)))


def optimality_gap(values: np.ndarray) -> np.ndarray:
    """Returns by how much scores miss 1 on average; what lies above 1 does not make up for what lies below."""
    return np.asarray(np.maximum(0.0, 1.0 - values).mean(axis=-1))


def _mean(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.mean(axis=-1))


def _median(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.median(values, axis=-1))


AGGREGATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "iqm": interquartile_mean,
    "mean": _mean,
    "median": _median,
    "optimality_gap": optimality_gap,
}


def pooled(strata: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the scores of all strata as one vector ``[V] float64``."""
    return np.concatenate([np.asarray(stratum, dtype=np.float64).ravel() for stratum in strata])


def bootstrap(
    strata: Sequence[np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Returns a statistic of the pooled scores and its stratified bootstrap interval (see `interval_of`).

    Runs are drawn with replacement within each stratum.
    """
    rng = np.random.default_rng(seed)
    point = float(statistic(pooled(strata)))
    runs = [len(stratum) for stratum in strata]
    if max(runs) < 2:
        return Interval(point, math.nan, math.nan)
    size = sum(stratum.size for stratum in strata)
    chunk = max(1, _CHUNK // size)
    drawn = []  # statistics of the resamples, [R] float64 once joined
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        parts = [
            stratum[rng.integers(len(stratum), size=(count, len(stratum)))].reshape(count, -1) for stratum in strata
        ]
        drawn.append(statistic(np.concatenate(parts, axis=1)))
    return interval_of(point, np.concatenate(drawn), runs=runs, level=level)


def interval_of(
    point: float,
    drawn: np.ndarray,
    *,
    runs: Sequence[int],
    level: float = LEVEL,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Returns Student's interval with the bootstrap's standard error, from a statistic's resampled values ``[R]``.

    The percentile interval of few runs is too narrow twice over: the bootstrap variance is ``(N - 1) / N`` of the
    unbiased one, and normal quantiles stand where Student's belong; and of five runs there are too few different
    resamples to read far into the tail. So the interval is ``point +- t sqrt(N / (N - 1)) s`` with the resamples'
    standard deviation s (Hesterberg, "What Teachers Should Know About the Bootstrap", https://arxiv.org/abs/1411.5279,
    sections 3.2 and 4). With several strata of about N runs each, the degrees of freedom of t add up over strata.
    """
    counted = [n for n in runs if n > 1]
    smallest, freedom = min(counted), sum(n - 1 for n in counted)
    half = student_t_quantile((1 + level) / 2, freedom) * math.sqrt(smallest / (smallest - 1)) * float(drawn.std())
    return Interval(point, max(point - half, bounds[0]), min(point + half, bounds[1]))


def resample_counts(runs: int, *, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Returns how often each run is drawn in each resample, as weights ``[R, N] float64`` that sum to 1.

    Statistics that are linear in the runs then need one matrix product instead of R gathers.
    """
    drawn = rng.integers(runs, size=(resamples, runs), dtype=np.int32)  # [R, N]; far cheaper than rng.multinomial
    drawn += np.arange(resamples, dtype=np.int32)[:, None] * runs
    return np.bincount(drawn.ravel(), minlength=resamples * runs).reshape(resamples, runs) / runs


@lru_cache(maxsize=256)
def student_t_quantile(probability: float, freedom: float) -> float:
    """Returns the quantile of Student's t distribution (bisection on its integrated density)."""
    if probability < 0.5:
        return -student_t_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while student_t_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


@lru_cache(maxsize=1)
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(200)


def student_t_cdf(value: float, freedom: float) -> float:
    """Returns the share of Student's t distribution below a value."""
    # With t = sqrt(v) tan(a) the density's tail becomes the integral of cos(a)^(v - 1) over a finite interval.
    angle = math.atan(value / math.sqrt(freedom))
    nodes, weights = _quadrature()
    points = (nodes + 1) * angle / 2
    area = float(weights @ np.cos(points) ** (freedom - 1)) * angle / 2
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return 0.5 + scale * area
