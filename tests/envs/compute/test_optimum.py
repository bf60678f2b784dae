"""The exact optima against brute force."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from treegym.envs.compute.estimates import adaptive_consistency, stopped
from treegym.envs.compute.optimum import (
    best_oracle,
    difficulty_oracle,
    optimal_stopping,
    unlabelled_oracle,
    verified_cost,
    verified_value,
)
from treegym.errors import ConfigError
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import TokenTree
from treegym.tree.values import child_probabilities

COUNTS = np.array([[3, 1, 0], [1, 2, 1]])
RIGHT = np.array([[True, False, False], [False, True, False]])
LENGTHS = np.array([[2.0, 1.0, 1.0], [1.0, 3.0, 2.0]])


def brute_force(counts: np.ndarray, right: np.ndarray, lengths: np.ndarray, *, limit: int, cost: float) -> float:
    """Plans over what was seen, named in the order of first sight, by keeping every prompt's every ordered history."""

    def histories(length: int) -> list[tuple[float, int, tuple[int, ...]]]:
        found = [(1 / len(counts), q, ()) for q in range(len(counts))]
        for _ in range(length):
            longer = []
            for weight, q, drawn in found:
                left = counts[q] - np.bincount(drawn, minlength=counts.shape[1])
                for a in np.flatnonzero(left):
                    longer.append((weight * left[a] / left.sum(), q, (*drawn, int(a))))
            found = longer
        return found

    def shape(drawn: tuple[int, ...]) -> tuple[int, ...]:
        names: dict[int, int] = {}
        return tuple(names.setdefault(a, len(names)) for a in drawn)

    @cache
    def value(seen: tuple[int, ...]) -> float:
        here = [h for h in histories(len(seen)) if shape(h[2]) == seen]
        total = sum(weight for weight, _, _ in here)
        stop = 0.0
        for name in set(seen):
            at = seen.index(name)
            stop = max(stop, sum(w for w, q, drawn in here if right[q, drawn[at]]) / total)
        if len(seen) == limit:
            return stop
        further = 0.0
        for weight, q, drawn in histories(len(seen) + 1):
            if shape(drawn[:-1]) == seen:
                further += weight / total * (value(shape(drawn)) - cost * lengths[q, drawn[-1]])
        return max(stop, further)

    return value(())


@pytest.mark.parametrize("cost", [0.0, 0.02, 0.1, 0.4])
def test_optimal_stopping_equals_planning_over_histories(cost: float) -> None:
    expected = brute_force(COUNTS, RIGHT, LENGTHS, limit=4, cost=cost)
    found = optimal_stopping(COUNTS, RIGHT, limit=4, cost=cost, lengths=LENGTHS)
    assert found.value == pytest.approx(expected)
    assert found.value == pytest.approx(found.accuracy - (cost * found.tokens if cost else 0.0))


def test_no_rule_by_counts_beats_the_optimum_and_knowing_more_is_no_loss() -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(12, [0.5, 0.3, 0.2], size=6)
    right = np.arange(3)[None] == rng.integers(3, size=6)[:, None]
    for cost in (0.01, 0.05):
        best = optimal_stopping(counts, right, limit=8, cost=cost)
        rule = [stopped(c, r, adaptive_consistency(0.9), limit=8) for c, r in zip(counts, right, strict=True)]
        assert np.mean([s.accuracy - cost * s.samples for s in rule]) <= best.value + 1e-12
        assert difficulty_oracle(counts, right, limit=8, cost=cost).value >= best.value - 1e-12


def test_free_samples_are_all_taken_and_dear_ones_never() -> None:
    assert optimal_stopping(COUNTS, RIGHT, limit=4, cost=5.0).samples == 0.0
    # One sample: 3/4 of the first prompt's and 1/2 of the second's are right.
    one = optimal_stopping(COUNTS, RIGHT, limit=1, cost=0.01)
    assert one[:4] == pytest.approx((0.625 - 0.01, 0.625, 1.0, 1.0))


def test_verified_success_by_hand(hand_made: TokenTree) -> None:
    # A token costs 1. Below the root a, b, c with 1/2, 1/4, 1/4; a leads to a wrong end only. From b a right end is one
    # token away: t = 1; from c three: t = 3. With b alone: (1 + 1/4) / (1/4) = 5. With b and c: (1 + 1/4 + 3/4) / (1/2)
    # = 4. So after a one starts anew, and c is gone on with.
    hand_made.verdict[7] = 0.0
    table = np.ones(10)
    table[[1, 2, 3]] = 0.5, 0.25, 0.25
    t = verified_cost(hand_made, table)
    assert t.tolist() == [4, np.inf, 1, 3, np.inf, 0, 2, np.inf, 1, 0]
    assert verified_value(t[[0, 1]], 0.1).tolist() == pytest.approx([0.6, 0.0])


def test_verified_success_solves_its_equation() -> None:
    tree = synthetic_tree(roots=20, depth=5, branching=4, seed=2)
    probability = child_probabilities(tree)
    t = verified_cost(tree, probability)
    for u in range(tree.size):
        if not np.isfinite(t[u]) or not tree.child_count[u]:
            continue
        below = tree.children(u)
        assert t[u] == pytest.approx(1.0 + (probability[below] * np.minimum(t[below], t[u])).sum())


def test_pools_of_different_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 to 5 samples; equally many"):
        optimal_stopping(np.array([[4, 0], [4, 1]]), np.ones((2, 2), bool), limit=2, cost=0.1)


def _told(drawn: tuple[int, ...], score: list[float], right: list[bool], lengths: list[int], *, cost: float) -> float:
    """Returns the best expected reward from here on, of all plans that may depend on every chain that was drawn."""
    n = len(score)
    here = 0.0
    if drawn:
        best = max(drawn, key=lambda i: (score[i], -drawn.index(i)))  # of equals the one that was opened first
        here = float(right[best])
    if len(drawn) == 3:
        return here
    rest = [i for i in range(n) if i not in drawn]
    further = sum(_told((*drawn, i), score, right, lengths, cost=cost) - cost * lengths[i] for i in rest) / len(rest)
    return max(here, further)


@pytest.mark.parametrize("cost", [0.0, 0.02, 0.1, 0.3])
def test_the_best_oracle_against_all_plans(cost: float) -> None:
    score, right = [0.2, 0.9, 0.5, 0.5, 0.1], [True, False, True, False, False]
    equal = [2, 2, 2, 2, 2]
    found = best_oracle(np.array(score), np.array(right), np.array(equal), limit=3, cost=cost)
    assert found == pytest.approx(_told((), score, right, equal, cost=cost))
    lengths = [1, 4, 2, 3, 5]
    found = best_oracle(np.array(score), np.array(right), np.array(lengths), limit=3, cost=cost)
    assert found >= _told((), score, right, lengths, cost=cost) - 1e-12


def test_the_best_oracle_by_hand() -> None:
    # Two chains: one right with the lower score, one wrong. Drawn first (half of the time), the right one is answered
    # with; after the wrong one nothing helps. 1 / 2 less a chain of 3 tokens at 0.1 is 0.2.
    found = best_oracle(np.array([0.1, 0.9]), np.array([True, False]), np.array([3, 3]), limit=2, cost=0.1)
    assert found == pytest.approx(0.2)
    # With the scores the other way round the right one is found in any case: after the wrong one, half of the time, a
    # second chain is worth 1 - 0.3. So (1 + 0.7) / 2 - 0.3.
    found = best_oracle(np.array([0.9, 0.1]), np.array([True, False]), np.array([3, 3]), limit=2, cost=0.1)
    assert found == pytest.approx(0.55)
    # At a price of 0.4 per token no chain is worth its 1.2.
    assert best_oracle(np.array([0.9, 0.1]), np.array([True, False]), np.array([3, 3]), limit=2, cost=0.4) == 0.0


# Two prompts, four chains each, known by what they look like; how likely a look is right differs between the prompts.
LOOKS = (("long", "short", "short", "odd"), ("short", "odd", "odd", "long"))
CHANCES = ({"long": 0.9, "short": 0.3, "odd": 0.2}, {"long": 0.1, "short": 0.5, "odd": 0.6})


def _blind(prompts: tuple[int, ...], *, limit: int, cost: float) -> float:
    """Returns the best reward of a controller that sees the looks of what it drew, by all its histories."""

    @cache
    def value(seen: tuple[str, ...]) -> float:
        after: dict[str, float] = {}
        weights = {}
        for q in prompts:
            weight, left = 1.0, list(LOOKS[q])
            for look in seen:
                weight *= left.count(look) / len(left)
                if look in left:
                    left.remove(look)
            weights[q] = weight
            for look in set(left) if weight else ():
                after[look] = after.get(look, 0.0) + weight * left.count(look) / len(left)
        total = sum(weights.values())
        stop = max((sum(w * CHANCES[q][look] for q, w in weights.items()) / total for look in seen), default=0.0)
        if len(seen) == limit:
            return stop
        return max(stop, sum(w / total * value((*seen, look)) for look, w in after.items()) - cost)

    return value(())


@pytest.mark.parametrize("cost", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_controller_that_sees_no_verdicts_exceeds_the_unlabelled_oracle(limit: int, cost: float) -> None:
    chance = [np.array([CHANCES[q][look] for look in LOOKS[q]]) for q in (0, 1)]
    told = [unlabelled_oracle(c, np.ones(4), limit=limit, cost=cost) for c in chance]
    for q in (0, 1):  # whoever knows the prompt reaches it
        assert told[q] == pytest.approx(_blind((q,), limit=limit, cost=cost))
    assert np.mean(told) >= _blind((0, 1), limit=limit, cost=cost) - 1e-12


def test_the_unlabelled_oracle_by_hand() -> None:
    # Chances of 0.8 and 0.2, chains of one token at 0.1. The better one comes first half of the time; else a second
    # chain is worth 0.8 - 0.1 = 0.7 more than stopping at 0.2. (0.8 + 0.7) / 2 - 0.1 = 0.65.
    assert unlabelled_oracle(np.array([0.8, 0.2]), np.ones(2), limit=2, cost=0.1) == pytest.approx(0.65)
    with pytest.raises(ConfigError, match=r"chances go from 0.5 to 1.5; numbers between 0 and 1 were expected"):
        unlabelled_oracle(np.array([0.5, 1.5]), np.ones(2), limit=2, cost=0.1)
