from __future__ import annotations

import numpy as np
import pytest

from treegym.bench.significance import holm, improvement, paired_difference, performance_profile, sign_flip_p_value


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


def test_sign_flips() -> None:
    # Eight differences of the same sign: only all-plus and all-minus are as extreme, 2 / 256 = 0.0078.
    assert sign_flip_p_value(np.ones(8), seed=0) == pytest.approx(2 / 256, abs=0.003)
    assert sign_flip_p_value(np.zeros(8), seed=0) == 1.0


def test_holm_adjusts_in_order_and_stays_monotone() -> None:
    # Sorted 0.01 0.02 0.04 0.5 times 4 3 2 1: 0.04, 0.06, 0.08, 0.5.
    assert holm([0.04, 0.01, 0.5, 0.02]) == pytest.approx([0.08, 0.04, 0.5, 0.06])
    assert holm([0.02, 0.019]) == pytest.approx([0.038, 0.038])
