from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from treegym.bench.statistics import (
    AGGREGATES,
    Interval,
    bootstrap,
    interquartile_mean,
    interval_of,
    optimality_gap,
    pooled,
    resample_counts,
    student_t_quantile,
)


def test_interquartile_mean_of_a_multiple_of_four_drops_a_quarter_on_each_side() -> None:
    # Sorted 0 1 2 3 4 5 6 100: two values go on each side, (2 + 3 + 4 + 5) / 4 = 3.5.
    assert interquartile_mean(np.array([100, 0, 6, 1, 5, 2, 4, 3])) == pytest.approx(3.5)


def test_interquartile_mean_counts_values_at_the_cut_by_their_share() -> None:
    # Five values: the middle 2.5 of 5, from 1.25 to 3.75. So 0.75 of the second, all of the third, 0.75 of the fourth:
    # (0.75 * 1 + 2 + 0.75 * 30) / 2.5 = 25.25 / 2.5 = 10.1.
    assert interquartile_mean(np.array([0, 1, 2, 30, 1000])) == pytest.approx(10.1)


def test_optimality_gap_does_not_let_scores_above_one_make_up_for_others() -> None:
    # max(0, 1 - 0.5) = 0.5 and max(0, 1 - 2) = 0: their mean is 0.25.
    assert optimality_gap(np.array([0.5, 2.0])) == pytest.approx(0.25)


def test_student_quantiles_match_printed_tables() -> None:
    # Two-sided 95 %: 12.706 at 1 degree of freedom, 2.776 at 4, 2.262 at 9, 1.984 at 100.
    for freedom, value in ((1, 12.706), (4, 2.776), (9, 2.262), (100, 1.984)):
        assert student_t_quantile(0.975, freedom) == pytest.approx(value, abs=5e-4)
    assert student_t_quantile(0.025, 4) == pytest.approx(-2.776, abs=5e-4)


def test_the_interval_of_a_mean_is_students() -> None:
    # Runs 0.7 0.8 0.9: mean 0.8, standard error 0.1 / sqrt(3) = 0.05774, Student's t at two degrees of freedom 4.303,
    # so 0.8 +- 0.248.
    interval = bootstrap([np.array([[0.7], [0.8], [0.9]])], AGGREGATES["mean"], seed=0, resamples=100_000)
    assert (interval.low, interval.high) == pytest.approx((0.552, 1.048), abs=0.002)


def test_more_runs_and_more_strata_narrow_the_interval() -> None:
    drawn = np.random.default_rng(0).normal(0.5, 0.1, 1000)
    widths = [interval_of(0.5, drawn, runs=runs) for runs in ((2,), (5,), (5, 5, 5), (5000,))]
    assert [w.high - w.low for w in widths] == sorted((w.high - w.low for w in widths), reverse=True)
    assert widths[-1].high - widths[-1].low == pytest.approx(2 * 1.96 * drawn.std(), rel=1e-3)
    clipped = interval_of(0.5, drawn, runs=(2,), bounds=(0.0, 1.0))
    assert (clipped.low, clipped.high) == (0.0, 1.0)


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    scores = [np.random.default_rng(3).random((30, 2))]
    first = bootstrap(scores, interquartile_mean, seed=1)
    assert first == bootstrap(scores, interquartile_mean, seed=1)
    assert first != bootstrap(scores, interquartile_mean, seed=2)
    assert first.low < first.point < first.high


def test_equal_runs_have_an_interval_of_no_width_and_one_run_has_none() -> None:
    equal = bootstrap([np.full((5, 1), 0.4)], interquartile_mean, seed=0)
    assert (equal.low, equal.point, equal.high) == pytest.approx((0.4, 0.4, 0.4))
    single = bootstrap([np.array([[0.4]])], interquartile_mean, seed=0)
    assert np.isnan(single.low)
    assert np.isnan(single.high)


def test_runs_are_resampled_whole() -> None:
    # In each run the two scores add up to 1, so whatever runs are drawn, the mean is exactly one half.
    first = np.random.default_rng(0).random((8, 1))
    interval = bootstrap([np.hstack([first, 1 - first])], AGGREGATES["mean"], seed=0)
    assert interval.low == pytest.approx(0.5)
    assert interval.high == pytest.approx(0.5)


def test_resample_counts_are_weights() -> None:
    counts = resample_counts(7, resamples=50, rng=np.random.default_rng(0))
    assert counts.shape == (50, 7)
    assert counts.sum(axis=1) == pytest.approx(np.ones(50))
    assert (counts * 7 == np.round(counts * 7)).all()


@pytest.mark.parametrize(("low", "high", "expected"), [(0.0, 0.4, True), (0.61, 0.9, False)])
def test_overlap(low: float, high: float, expected: bool) -> None:
    assert Interval(0.5, 0.4, 0.6).overlaps(Interval((low + high) / 2, low, high)) is expected


Draw = Callable[[np.random.Generator], list[np.ndarray]]


def _normal(runs: int, envs: int) -> Draw:
    return lambda rng: [rng.normal(0.5, 0.1, size=(runs, 1)) for _ in range(envs)]


def _correlated_kinds(runs: int, envs: int) -> Draw:
    means = np.linspace(0.3, 0.8, 4)

    def draw(rng: np.random.Generator) -> list[np.ndarray]:
        return [rng.normal(0, 0.08, (runs, 1)) + means + rng.normal(0, 0.05, (runs, 4)) for _ in range(envs)]

    return draw


def _accuracies(runs: int, envs: int) -> Draw:
    return lambda rng: [rng.binomial(400, rng.beta(60, 8, size=(runs, 1))) / 400 for _ in range(envs)]


@pytest.mark.parametrize(
    ("draw", "statistic"),
    [
        (_normal(3, 1), "mean"),
        (_normal(5, 1), "mean"),
        (_normal(5, 4), "iqm"),
        (_normal(20, 1), "iqm"),
        (_correlated_kinds(5, 1), "iqm"),
        (_correlated_kinds(5, 3), "mean"),
        (_accuracies(5, 1), "iqm"),  # what the quick suite has
        (_accuracies(5, 1), "mean"),
        (_accuracies(10, 2), "iqm"),
        (_accuracies(10, 4), "mean"),  # what the full suite has
    ],
)
def test_intervals_cover_the_truth_in_93_to_97_percent_of_trials(draw: Draw, statistic: str) -> None:
    # The truth is the statistic of thousands of runs; over 1,500 trials the estimated coverage moves by 0.6 points.
    population = np.concatenate([pooled(draw(np.random.default_rng(10**6 + i))) for i in range(4_000)])
    truth = float(AGGREGATES[statistic](population))
    hits = 0
    for trial in range(1500):
        interval = bootstrap(draw(np.random.default_rng(trial)), AGGREGATES[statistic], seed=trial, resamples=500)
        hits += interval.low <= truth <= interval.high
    assert 0.93 <= hits / 1500 <= 0.97
