"""Is one agent better than another: probability of improvement, profiles, paired differences, corrections.

Letters: N and M runs of two agents in one environment, T scores of each run, R resamples, P prompts, X thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from treegym.bench.statistics import RESAMPLES, Interval, interval_of, resample_counts, student_t_cdf

__all__ = ["difference_p_value", "holm", "improvement", "paired_difference", "performance_profile"]


def improvement(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Returns the probability that a run of the first agent beats a run of the second, averaged over environments.

    Ties count half (Mann-Whitney). Both agents' runs are resampled, each environment by itself. The probability is
    linear in either side's run weights, so R resamples cost two matrix products instead of R comparisons.
    """
    rng = np.random.default_rng(seed)
    points, drawn, runs = [], np.zeros(resamples), []
    tasks = sum(stratum.shape[1] for stratum in first)
    for ours, theirs in zip(first, second, strict=True):
        ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
        gap = np.sign(ours[:, None, :] - theirs[None, :, :])  # [N, M, T] float64: -1, 0 or 1
        wins = (0.5 + 0.5 * gap).sum(axis=2) / tasks  # [N, M] float64, this environment's share
        points.append(wins.mean())
        weights = resample_counts(len(ours), resamples=resamples, rng=rng)  # [R, N] float64
        others = resample_counts(len(theirs), resamples=resamples, rng=rng)  # [R, M] float64
        drawn += ((weights @ wins) * others).sum(axis=1)
        runs.append(min(len(ours), len(theirs)))
    point = float(sum(points))
    if max(runs) < 2:
        return Interval(point, float("nan"), float("nan"))
    return interval_of(point, drawn, runs=runs, bounds=(0.0, 1.0))


def performance_profile(
    strata: Sequence[np.ndarray], thresholds: np.ndarray, *, seed: int, resamples: int = 500
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, for each threshold, the share of scores above it, and the ends of its interval, all ``[X]``."""
    rng = np.random.default_rng(seed)
    total = sum(stratum.size for stratum in strata)
    point = np.zeros(len(thresholds))  # [X] float64
    drawn = np.zeros((resamples, len(thresholds)))  # [R, X] float64
    for stratum in strata:
        # Counting by sorting keeps this linear in the scores: [N, X] would be [N, T, X] otherwise.
        above = np.stack([row.size - np.searchsorted(np.sort(row), thresholds, side="right") for row in stratum])
        share = above / total  # [N, X] float64
        point += share.sum(axis=0)
        drawn += resample_counts(len(stratum), resamples=resamples, rng=rng) @ share * len(stratum)
    if max(len(stratum) for stratum in strata) < 2:
        return point, np.full_like(point, np.nan), np.full_like(point, np.nan)
    runs = [len(stratum) for stratum in strata]
    ends = [interval_of(float(p), drawn[:, x], runs=runs, bounds=(0.0, 1.0)) for x, p in enumerate(point)]
    return point, np.array([end.low for end in ends]), np.array([end.high for end in ends])


def paired_difference(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Returns the mean difference first - second over prompts, with an interval over runs *and* prompts.

    Each pair of arrays is one environment: scores ``[N, P]`` and ``[M, P]`` on the same P prompts. Runs of both sides
    and prompts are drawn anew in each resample, the same prompts for both (Owen's pigeonhole bootstrap,
    https://doi.org/10.1214/07-AOAS122), so the interval speaks about new training runs and new prompts alike; it errs
    on the wide side.
    """
    rng = np.random.default_rng(seed)
    point, drawn, weight = 0.0, np.zeros(resamples), 1 / len(first)
    for ours, theirs in zip(first, second, strict=True):
        ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
        point += weight * float(ours.mean() - theirs.mean())
        prompts = resample_counts(ours.shape[1], resamples=resamples, rng=rng)  # [R, P] float64
        for sign, scores in ((1.0, ours), (-1.0, theirs)):
            runs = resample_counts(len(scores), resamples=resamples, rng=rng)  # [R, N] float64
            drawn += weight * sign * ((runs @ scores) * prompts).sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(point, float(low), float(high))


def difference_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the two-sided p value of the mean difference between two agents' scores ``[N, P]`` and ``[M, P]``.

    Runs and prompts are both taken as drawn at random, prompts the same for both sides: the variance of the mean
    difference is that of the runs' means plus that of the prompts' differences. What is neither run nor prompt is in
    both, so the test errs on the safe side, as `paired_difference` does. Student's t has Satterthwaite's degrees of
    freedom (https://doi.org/10.2307/3002019). A side of one run counts as the only run there could be.
    """
    difference = first.mean(axis=0) - second.mean(axis=0)
    parts = [
        (float(sample.var(ddof=1)) / len(sample), len(sample) - 1)
        for sample in (difference, first.mean(axis=1), second.mean(axis=1))
        if len(sample) > 1
    ]
    variance = sum(part for part, _ in parts)
    if difference.mean() == 0.0:
        return 1.0
    if variance == 0.0:
        return 0.0  # every run and every prompt says the same
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return 2.0 * (1.0 - student_t_cdf(abs(float(difference.mean())) / math.sqrt(variance), freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm's step-down adjusted p values, which hold for all comparisons of a table at once."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = running
    return [float(p) for p in adjusted]
