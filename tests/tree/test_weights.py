"""Child weights follow DESIGN.md's rule, by hand-worked numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.weights import ChildWeights, initial_weights


def small() -> Any:
    return synthetic_tree(roots=2, depth=3, branching=3, seed=0)


def test_children_start_with_one_over_n() -> None:
    # node 0: two children (1, 2); node 1: three children (3, 4, 5)
    weights = initial_weights(np.array([1, 3, -1, -1, -1, -1]), np.array([2, 3, 0, 0, 0, 0]))
    np.testing.assert_allclose(weights, [1, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])


def test_a_wrong_child_loses_and_a_first_episode_gains_nothing() -> None:
    tree = small()
    weights = ChildWeights(tree, rate=0.5)
    path = np.array([int(tree.first_child[0]), int(tree.first_child[0]) + 1])
    start = weights.weights[path].copy()
    weights.update(0, path, right=np.array([True, False]), episode_return=1.0)
    np.testing.assert_allclose(weights.weights[path], [start[0], start[1] * 0.5])


def test_a_right_child_gains_only_when_the_return_improved() -> None:
    tree = small()
    weights = ChildWeights(tree, rate=0.1)
    path = np.array([int(tree.first_child[0])])
    start = float(weights.weights[path[0]])
    right = np.array([True])
    weights.update(0, path, right=right, episode_return=0.2)
    weights.update(0, path, right=right, episode_return=0.2)  # the same again: taken, but no better
    assert weights.weights[path[0]] == pytest.approx(start)
    weights.update(0, path, right=right, episode_return=0.7)
    assert weights.weights[path[0]] == pytest.approx(start + 0.1 * (1 - start))
    weights.update(1, path, right=right, episode_return=9.0)  # another root's first episode
    assert weights.weights[path[0]] == pytest.approx(start + 0.1 * (1 - start))


def test_weights_stay_between_floor_and_one() -> None:
    tree = small()
    weights = ChildWeights(tree, rate=0.9, floor=0.01)
    path = np.array([int(tree.first_child[0]), int(tree.first_child[0]) + 1])
    for i in range(50):
        weights.update(0, path, right=np.array([True, False]), episode_return=float(i))
    assert weights.weights[path[0]] <= 1.0
    assert weights.weights[path[1]] == pytest.approx(0.01)


def test_bad_episodes_are_refused() -> None:
    weights = ChildWeights(small())
    with pytest.raises(ConfigError, match="return of root 0 is nan"):
        weights.update(0, np.array([1]), right=np.array([True]), episode_return=float("nan"))
    with pytest.raises(ConfigError, match="out of range"):
        weights.update(0, np.array([10**9]), right=np.array([True]), episode_return=0.0)
