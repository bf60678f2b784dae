from __future__ import annotations

import numpy as np
import pytest

from treegym.bench.significance import difference_p_value, holm, improvement, paired_difference, performance_profile


def test_improvement_counts_wins_and_half_of_ties() -> None:
    # Pairs (x, y): (1,0) win, (1,1) tie, (2,0) win, (2,1) win: 3.5 / 4 = 0.875.
    interval = improvement([np.array([[1.0], [2.0]])], [np.array([[0.0], [1.0]])], seed=0)
    assert interval.point == pytest.approx(0.875)


def test_improvement_of_equals_is_a_half_and_mirrors() -> None:
    rng = np.random.default_rng(0)
    a, b = [rng.random((6, 2))], [rng.random((5, 2))]
    assert improvement(a, a, seed=0).point == pytest.approx(0.5)
    assert improvement(a, b, seed=0).point + improvement(b, a, seed=0).point == pytest.approx(1.0)


def test_improvement_separates_clear_cases() -> None:
    better, worse = [np.full((5, 1), 0.9) + np.arange(5)[:, None] / 100], [np.full((5, 1), 0.2)]
    interval = improvement(better, worse, seed=0)
    assert interval.point == 1.0
    assert interval.low > 0.5


def test_profile_is_the_share_above_each_threshold() -> None:
    # Scores 0.2 0.4 0.6 0.8: above 0.5 are two of four, above 0.8 none (strictly), above 0 all.
    scores = [np.array([[0.2, 0.4], [0.6, 0.8]])]
    point, low, high = performance_profile(scores, np.array([0.0, 0.5, 0.8]), seed=0)
    assert point == pytest.approx([1.0, 0.5, 0.0])
    assert (low <= point).all()
    assert (point <= high).all()


def test_paired_difference_ignores_how_hard_prompts_are() -> None:
    hardness = np.random.default_rng(0).random(200)
    first, second = np.tile(hardness + 0.1, (3, 1)), np.tile(hardness, (3, 1))
    interval = paired_difference([first], [second], seed=0)
    assert (interval.point, interval.low, interval.high) == pytest.approx((0.1, 0.1, 0.1))


def test_p_value_by_hand() -> None:
    # One run a side, four prompts, differences 1 1 1 0: mean 0.75, variance 0.25, t = 0.75 / sqrt(0.25 / 4) = 3 with
    # three degrees of freedom, whose two-sided p value is 0.0577 in printed tables.
    first, second = np.array([[1.0, 1.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 0.0, 1.0]])
    assert difference_p_value(first, second) == pytest.approx(0.0577, abs=1e-4)
    assert difference_p_value(first, first) == 1.0
    assert difference_p_value(first, np.zeros((1, 4))) == 0.0


@pytest.mark.parametrize("spread", [0.0, 0.15, 0.4])
def test_equal_agents_are_rarely_told_apart_however_much_their_runs_differ(spread: float) -> None:
    # Five runs a side on 300 prompts; `spread` is how much training runs differ, in logits. A test that takes the runs
    # as given calls up to half of these pairs different.
    mistaken = found = 0
    for trial in range(300):
        rng = np.random.default_rng(trial)
        ease = rng.normal(1.5, 1.5, 300)

        def scores(better: float, rng: np.random.Generator = rng, ease: np.ndarray = ease) -> np.ndarray:
            skill = ease + better + rng.normal(0, spread, (5, 1)) + rng.normal(0, 1, (5, 300))
            return (rng.random((5, 300)) < 1 / (1 + np.exp(-skill))).astype(float)

        mistaken += difference_p_value(scores(0.0), scores(0.0)) < 0.05
        found += difference_p_value(scores(1.0), scores(0.0)) < 0.05
    assert mistaken / 300 < 0.09  # 5 % nominal; 300 trials move by 1.3 points
    assert found / 300 > 0.75


def test_holm_adjusts_in_order_and_stays_monotone() -> None:
    # Sorted 0.01 0.02 0.04 0.5 times 4 3 2 1: 0.04, 0.06, 0.08, 0.5.
    assert holm([0.04, 0.01, 0.5, 0.02]) == pytest.approx([0.08, 0.04, 0.5, 0.06])
    assert holm([0.02, 0.019]) == pytest.approx([0.038, 0.038])
