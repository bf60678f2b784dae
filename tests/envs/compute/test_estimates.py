"""Exact estimates against enumeration: every subset, every order of small pools."""

from __future__ import annotations

from itertools import combinations, permutations, product

import numpy as np
import pytest

from treegym.envs.compute.estimates import (
    adaptive_consistency,
    best_of_k,
    consensus_at_k,
    consensus_of_law,
    early_stopping,
    mean_at_k,
    pass_at_k,
    stopped,
)
from treegym.errors import ConfigError

CORRECT = np.array([True, False, False, True, False, False])
SCORES = np.array([0.5, 0.9, 0.5, 0.2, 0.5, 0.1])
ANSWERS = [0, 0, 1, 1, 1, 2, 2]  # answer 1 is right


def plurality(drawn: list[int], right: int) -> float:
    counts = np.bincount(drawn, minlength=3)
    first = np.flatnonzero(counts == counts.max())
    return float((first == right).mean())


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_pass_and_best_of_k_are_means_over_all_subsets(k: int) -> None:
    subsets = list(combinations(range(6), k))
    assert pass_at_k(CORRECT, k) == pytest.approx(np.mean([CORRECT[list(s)].any() for s in subsets]))
    best = []
    for s in subsets:
        top = [i for i in s if SCORES[i] == SCORES[list(s)].max()]
        best.append(CORRECT[top].mean())
    assert best_of_k(SCORES, CORRECT, k) == pytest.approx(np.mean(best))
    assert mean_at_k(CORRECT) == pytest.approx(2 / 6)


@pytest.mark.parametrize("k", range(1, 8))
@pytest.mark.parametrize("right", [0, 1, 2])
def test_consensus_is_a_mean_over_all_subsets(k: int, right: int) -> None:
    expected = np.mean([plurality([ANSWERS[i] for i in s], right) for s in combinations(range(7), k)])
    flags = np.arange(3) == right
    assert consensus_at_k(np.bincount(ANSWERS), flags, k) == pytest.approx(expected)


def test_consensus_with_silent_samples() -> None:
    # Answers 0, 0, 1 and one sample that says nothing; 0 is right. Of the pairs: 00 right, 01 twice half, 0- twice
    # right, 1- wrong: (1 + 2 / 2 + 2) / 6 = 4 / 6.
    assert consensus_at_k(np.array([2, 1]), np.array([True, False]), 2, silent=1) == pytest.approx(4 / 6)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_consensus_of_a_law_is_the_limit_of_a_large_pool(k: int) -> None:
    law = np.array([0.5, 0.3, 0.1])  # and 0.1 say nothing
    right = np.array([False, True, False])
    chance = 0.0
    for drawn in product(range(4), repeat=k):
        counts = np.bincount(drawn, minlength=4)[:3]
        first = np.flatnonzero(counts == counts.max()) if counts.max() else np.array([0])
        chance += float((first == 1).mean()) * float(np.prod(np.append(law, 0.1)[list(drawn)]))
    assert consensus_of_law(law, right, k) == pytest.approx(chance)
    large = consensus_at_k(np.array([5000, 3000, 1000]), right, k, silent=1000)
    assert consensus_of_law(law, right, k) == pytest.approx(large, abs=1e-3)


def walk(
    order: tuple[int, ...], rule: object, *, limit: int, window: int, lengths: list[float]
) -> tuple[float, int, float]:
    seen, recent = [0, 0, 0], [0, 0, 0]
    for i, answer in enumerate(order[:limit]):
        seen[answer] += 1
        recent[answer] += 1
        said = rule(tuple(seen), tuple(recent))  # type: ignore[operator]
        if said is None and i + 1 == limit:
            said = tuple(seen)
        if said is not None:
            tops = [a for a in range(3) if said[a] == max(said)]
            return (tops.count(1) / len(tops), i + 1, sum(lengths[a] for a in order[: i + 1]))
        if (i + 1) % window == 0:
            recent = [0, 0, 0]
    raise AssertionError


@pytest.mark.parametrize(
    ("rule", "window", "limit"),
    [(adaptive_consistency(0.8), 1, 7), (adaptive_consistency(0.95), 1, 5), (early_stopping(2), 2, 6)],
)
def test_stopping_rules_are_means_over_all_orders(rule: object, window: int, limit: int) -> None:
    lengths = [3.0, 5.0, 11.0]
    orders = list(permutations(ANSWERS))
    expected = np.mean([walk(o, rule, limit=limit, window=window, lengths=lengths) for o in orders], axis=0)
    flags = np.array([False, True, False])
    found = stopped(
        np.bincount(ANSWERS),
        flags,
        rule,
        limit=limit,
        window=window,
        lengths=np.array(lengths),  # type: ignore[arg-type]
    )
    assert found == pytest.approx(tuple(expected))


def test_four_unanimous_samples_suffice() -> None:
    found = stopped(np.array([8, 0]), np.array([True, False]), adaptive_consistency(0.95), limit=8)
    assert found == pytest.approx((1.0, 4.0, 4.0))


def test_more_than_is_stored_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is 7, but only 6 samples are stored"):
        pass_at_k(CORRECT, 7)
    with pytest.raises(ConfigError, match=r"probabilities of answers sum to 1\.2"):
        consensus_of_law(np.array([0.6, 0.6]), np.array([True, False]), 2)
