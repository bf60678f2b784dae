"""Group statistics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.agents.groups import (
    group_centred,
    group_leave_one_out,
    group_normalised,
    informative_groups,
    soft_overlong,
)

ONE_RIGHT = np.array([1.0, 0.0, 0.0, 0.0])
TOGETHER = np.zeros(4, np.int64)


def test_normalised() -> None:
    # mean .25; variance (.75^2 + 3 * .25^2) / 3 = .25; std .5: [.75, -.25, ...] / .5
    np.testing.assert_allclose(group_normalised(ONE_RIGHT, TOGETHER), [1.5, -0.5, -0.5, -0.5], atol=1e-5)


def test_leave_one_out() -> None:
    # 1 - mean(0, 0, 0) = 1; 0 - mean(1, 0, 0) = -1/3
    np.testing.assert_allclose(group_leave_one_out(ONE_RIGHT, TOGETHER), [1.0, -1 / 3, -1 / 3, -1 / 3], rtol=1e-6)


def test_centred() -> None:
    np.testing.assert_allclose(group_centred(ONE_RIGHT, TOGETHER), [0.75, -0.25, -0.25, -0.25])


def test_groups_are_told_apart_by_id_in_any_order() -> None:
    returns, groups = np.array([1.0, 5.0, 0.0, 7.0]), np.array([9, 2, 9, 2])
    np.testing.assert_allclose(group_centred(returns, groups), [0.5, -1.0, -0.5, 1.0])


def test_a_lone_episode_has_no_signal() -> None:
    for statistic in (group_normalised, group_centred, group_leave_one_out):
        np.testing.assert_array_equal(statistic(np.array([3.0]), np.array([0])), [0.0])


def test_rounding_is_no_signal() -> None:
    returns = np.full(7, 0.1, np.float32)  # the standard deviation of seven such copies is 8e-9
    groups = np.zeros(7, np.int64)
    assert not informative_groups(returns, groups, None).any()
    np.testing.assert_array_equal(group_normalised(returns + np.float32([0, 1e-8, 0, 0, 0, 0, 0]), groups), np.zeros(7))


def test_the_filter_looks_at_correctness_not_at_reward() -> None:
    groups = np.repeat([0, 1, 2], 2)
    shaped = np.array([0.9, 0.8, -0.1, -0.2, 0.9, -0.1])  # length penalties make returns differ within groups 0 and 1
    correct = np.array([1, 1, 0, 0, 1, 0], bool)
    np.testing.assert_array_equal(informative_groups(shaped, groups, correct), [0, 0, 0, 0, 1, 1])
    assert informative_groups(shaped, groups, None).all()


@pytest.mark.parametrize(("length", "expected"), [(80, 0.0), (90, -0.5), (100, -1.0), (101, -1.0), (1, 0.0)])
def test_soft_overlong(length: int, expected: float) -> None:
    # ((100 - 20) - |y|) / 20
    np.testing.assert_allclose(soft_overlong(np.array([length]), max_length=100, cache=20), [expected])


def test_soft_overlong_refuses_an_impossible_cache() -> None:
    with pytest.raises(ValueError, match="overlong_cache"):
        soft_overlong(np.array([1]), max_length=10, cache=11)
