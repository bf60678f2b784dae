"""Candidate selectors: exact probabilities, and negative, equal and NaN fitness."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search.selectors import (
    SELECTORS,
    choose,
    rank_probabilities,
    roulette_probabilities,
    tournament_probabilities,
)


def test_tournament_by_hand() -> None:
    # n 4, m 2: the r-th worst wins with C(r - 1, 1) / C(4, 2) = 0, 1/6, 2/6, 3/6
    np.testing.assert_allclose(tournament_probabilities(np.array([3.0, 1, 4, 2]), size=2), [2 / 6, 0, 3 / 6, 1 / 6])
    # two equal best of three, m 2: some of them are always drawn; each 1/2
    np.testing.assert_allclose(tournament_probabilities(np.array([5.0, 5, 1]), size=2), [0.5, 0.5, 0.0])


def test_roulette_by_hand() -> None:
    np.testing.assert_allclose(roulette_probabilities(np.array([1.0, 3.0])), [0.25, 0.75])
    np.testing.assert_allclose(roulette_probabilities(np.array([-2.0, 0.0, 4.0])), [0.0, 0.25, 0.75])  # 0, 2, 6 of 8
    np.testing.assert_allclose(roulette_probabilities(np.array([np.inf, 1.0])), [1.0, 0.0])
    np.testing.assert_allclose(roulette_probabilities(np.array([1e308, 1e308])), [0.5, 0.5])


def test_rank_by_hand() -> None:
    # s 1.5, n 3: (0.5 + 1.0 * r / 2) / 3 = 1/6, 1/3, 1/2
    np.testing.assert_allclose(rank_probabilities(np.array([7.0, -1.0, 3.0])), [1 / 2, 1 / 6, 1 / 3])
    np.testing.assert_allclose(rank_probabilities(np.array([2.0, 2.0, -1.0])), [5 / 12, 5 / 12, 1 / 6])


@pytest.mark.parametrize("name", SELECTORS)
def test_equal_fitness_is_uniform_and_nan_is_never_chosen(name: str) -> None:
    np.testing.assert_allclose(SELECTORS[name](np.full(5, -3.0)), 0.2)
    np.testing.assert_allclose(SELECTORS[name](np.array([np.nan, 2.0, 2.0])), [0, 0.5, 0.5])
    np.testing.assert_allclose(SELECTORS[name](np.full(4, np.nan)), 0.25)
    np.testing.assert_allclose(SELECTORS[name](np.array([7.0])), 1.0)
    with pytest.raises(ConfigError, match="at least one"):
        SELECTORS[name](np.array([]))


@pytest.mark.parametrize("name", SELECTORS)
def test_draws_follow_the_probabilities(name: str) -> None:
    fitness = np.array([0.5, -1.0, 2.0, np.nan, 2.0])
    drawn = np.bincount(choose(fitness, count=40_000, seed=1, selector=name), minlength=5) / 40_000
    np.testing.assert_allclose(drawn, SELECTORS[name](fitness), atol=0.01)
    assert drawn[3] == 0


def test_unknown_selectors_and_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'roulette'"):
        choose(np.ones(3), count=1, seed=0, selector="roullete")
    with pytest.raises(ConfigError, match="pressure is 3"):
        rank_probabilities(np.ones(3), pressure=3)
    with pytest.raises(ConfigError, match="size is 0"):
        tournament_probabilities(np.ones(3), size=0)
