"""Advantages against values worked out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from treegym.agents.advantages import discounted_returns, gae, lambda_for_length, whiten

REWARDS = np.array([0.0, 0.0, 5.0])
VALUES = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        # delta = [0 + 2 - 1, 0 + 3 - 2, 5 + 0 - 3] = [1, 1, 2]
        (0.0, [1.0, 1.0, 2.0]),
        # A_2 = 2; A_1 = 1 + .95 * 2 = 2.9; A_0 = 1 + .95 * 2.9 = 3.755
        (0.95, [3.755, 2.9, 2.0]),
        # return 5 from everywhere, minus V
        (1.0, [4.0, 3.0, 2.0]),
    ],
)
def test_gae_by_hand(lam: float, expected: list[float]) -> None:
    np.testing.assert_allclose(gae(REWARDS, VALUES, gamma=1.0, lam=lam), expected, rtol=1e-6)


@pytest.mark.parametrize("gap", [0, 1, 2, 3])
def test_a_masked_position_changes_nothing(gap: int) -> None:
    rewards, values = np.insert(REWARDS, gap, 7.0), np.insert(VALUES, gap, 999.0)
    valid = np.insert(np.ones(3, bool), gap, False)
    advantages = gae(rewards, values, gamma=1.0, lam=0.95, valid=valid)
    np.testing.assert_array_equal(advantages[valid], gae(REWARDS, VALUES, gamma=1.0, lam=0.95))
    assert advantages[gap] == 0.0


def test_decoupled_lambdas_on_the_same_data() -> None:
    # critic lambda 1: returns are 5 everywhere; policy lambda 0: one-step advantages
    returns = gae(REWARDS, VALUES, gamma=1.0, lam=1.0) + VALUES
    np.testing.assert_allclose(returns, [5.0, 5.0, 5.0])
    np.testing.assert_allclose(gae(REWARDS, VALUES, gamma=1.0, lam=0.0), [1.0, 1.0, 2.0])


def test_time_limits_bootstrap_and_terminals_do_not() -> None:
    # gamma .5: terminal: 2 - 1 = 1; cut off with V = 4 behind: 2 + .5 * 4 - 1 = 3
    common = {"gamma": 0.5, "lam": 0.9, "lengths": np.array([1, 1])}
    advantages = gae(np.array([2.0, 2.0]), np.array([1.0, 1.0]), bootstrap=np.array([0.0, 4.0]), **common)
    np.testing.assert_allclose(advantages, [1.0, 3.0])


def test_packed_episodes_do_not_leak_into_each_other() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([3, 1, 5])
    rewards, values = rng.normal(size=9), rng.normal(size=9)
    lam, bootstrap = np.array([0.2, 0.5, 0.9]), rng.normal(size=3)
    packed = gae(rewards, values, gamma=0.9, lam=lam, lengths=lengths, bootstrap=bootstrap)
    parts = np.split(np.arange(9), np.cumsum(lengths)[:-1])
    for e, part in enumerate(parts):
        alone = gae(rewards[part], values[part], gamma=0.9, lam=lam[e], bootstrap=bootstrap[e : e + 1])
        np.testing.assert_allclose(packed[part], alone, rtol=1e-6)


def test_discounted_returns() -> None:
    # 1 + .5 * (2 + .5 * 4) = 3, 2 + .5 * 4 = 4, 4
    np.testing.assert_allclose(discounted_returns(np.array([1.0, 2.0, 4.0]), gamma=0.5), [3.0, 4.0, 4.0])


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="not equal"):
        gae(REWARDS, VALUES, gamma=1.0, lam=1.0, lengths=np.array([2]))


@pytest.mark.parametrize(("length", "expected"), [(10, 0.0), (20, 0.0), (40, 0.5), (100, 0.8), (400, 0.95)])
def test_length_adaptive_lambda(length: int, expected: float) -> None:
    # 1 - 1 / (.05 l), floor 0
    lam = lambda_for_length(np.array([length]), alpha=0.05, lambda_min=0.0, warn=False)
    np.testing.assert_allclose(lam, [expected], atol=1e-12)


def test_short_episodes_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="raise alpha"):
        lambda_for_length(np.full(4, 12), alpha=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lambda_for_length(np.full(4, 12), alpha=1.0)


def test_lambda_stays_above_its_floor() -> None:
    np.testing.assert_allclose(lambda_for_length(np.array([1, 1000]), alpha=1.0, lambda_min=0.3), [0.3, 0.999])


def test_whiten() -> None:
    # mean 2, standard deviation (ddof 1) 1
    np.testing.assert_allclose(whiten(np.array([1.0, 2.0, 3.0])), [-1.0, 0.0, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(whiten(np.array([4.0])), [0.0])
