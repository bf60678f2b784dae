from __future__ import annotations

import numpy as np
import pytest

from treegym.bench.statistics import (
    AGGREGATES,
    Interval,
    bootstrap,
    expanded_level,
    interquartile_mean,
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


def test_few_runs_widen_the_interval_and_many_leave_it_as_it_is() -> None:
    # Phi(-sqrt(5 / 4) * 2.7764) = Phi(-3.1042) = 0.00095.
    assert expanded_level(runs=(5,)) == pytest.approx(0.00095, abs=2e-5)
    assert expanded_level(runs=(5, 5, 5)) > expanded_level(runs=(5,))
    assert expanded_level(runs=(5000,)) == pytest.approx(0.025, abs=2e-4)


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


def _normal(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(0.5, 0.1, size=(5, 1)) for _ in range(4)]


def _correlated_kinds(rng: np.random.Generator) -> list[np.ndarray]:
    means = np.linspace(0.3, 0.8, 4)
    return [rng.normal(0, 0.08, size=(5, 1)) + means + rng.normal(0, 0.05, size=(5, 4)) for _ in range(3)]


def _accuracies(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.binomial(100, rng.beta(8, 4, size=(10, 1))) / 100 for _ in range(2)]


@pytest.mark.parametrize(("draw", "statistic"), [(_normal, "iqm"), (_correlated_kinds, "mean"), (_accuracies, "iqm")])
def test_intervals_cover_the_truth_in_93_to_97_percent_of_trials(draw, statistic: str) -> None:
    # The truth is a statistic of 80,000 runs and more; over 1,000 trials the estimated coverage moves by 0.7 points.
    population = np.concatenate([pooled(draw(np.random.default_rng(10**6 + i))) for i in range(20_000)])
    truth = float(AGGREGATES[statistic](population))
    hits = 0
    for trial in range(1000):
        interval = bootstrap(draw(np.random.default_rng(trial)), AGGREGATES[statistic], seed=trial, resamples=1000)
        hits += interval.low <= truth <= interval.high
    assert 0.93 <= hits / 1000 <= 0.97
