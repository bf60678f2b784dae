"""REBASE and DVTS: how children are shared out, and what subtrees are for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Transition, search
from treegym.search.rebase import shares


def test_shares_by_hand() -> None:
    # weights 1, e^-1 = .3679, e^-8 = .0003, sum 1.3682: of 16 children 11.694, 4.302 and .004; the one left over goes
    # to the largest remainder
    assert shares(np.array([1.0, 0.9, 0.2]), 16, 0.1).tolist() == [12, 4, 0]
    assert shares(np.array([0.5, 0.5, 0.5]), 5, 0.1).tolist() == [2, 2, 1]
    assert shares(np.array([1.0, 0.0]), 8, 1e-6).tolist() == [8, 0]
    assert shares(np.array([1.0, 0.0]), 8, 1e6).tolist() == [4, 4]


class Flattered:
    """Four first moves of five steps each: what lies below move 0 looks best and pays least."""

    num_actions = 4

    def expand(self, states: np.ndarray) -> Evaluation:
        size = len(states)
        value = np.where(states[:, 0] == 0, 0.9, 0.5).astype(np.float32)
        return Evaluation(np.zeros((size, 4), np.float32), value, np.ones((size, 4), bool))

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        after = states + np.array([0, 1])
        after[:, 0] = np.where(states[:, 1] == 0, actions, states[:, 0])
        ended = after[:, 1] == 5
        return Transition(after, np.where(ended, np.where(after[:, 0] == 0, 0.1, 0.8), 0.0), ended)


def test_subtrees_do_not_all_follow_one_mistake() -> None:
    root = np.array([[-1, 0]])
    beam = search(Flattered(), root, method="beam", num_simulations=68, width=4)
    assert beam.visits[0].tolist() == [53, 5, 5, 5]  # the first level of each, then one alone
    found = search(Flattered(), root, method="dvts", num_simulations=80, subtrees=4, branching=4, answers=20)
    assert (found.visits > 0).all()
    assert found.action[0] != 0
    assert found.value[0] == pytest.approx(0.8)
    assert found.answers is not None
    assert {int(answer.states[-1][0]) for answer in found.answers.finished[0]} == {0, 1, 2, 3}


def test_confident_shares_follow_the_mistake_and_equal_ones_do_not() -> None:
    root = np.array([[-1, 0]])
    confident, equal = (
        search(Flattered(), root, method="rebase", num_simulations=80, width=16, balance=balance).visits[0]
        for balance in (0.02, 100.0)
    )
    assert confident[0] > 0.8 * confident.sum()
    assert equal[0] < 0.4 * equal.sum()


def test_with_budget_left_new_paths_are_begun(worlds: Any) -> None:
    tree = worlds.random_tree(1, roots=3, depth=3, branching=3)
    tree["value"][:] = 0
    world = worlds.TreeWorld(tree)
    result = search(world, np.arange(3), method="rebase", num_simulations=400)
    np.testing.assert_allclose(result.value, worlds.optimum(tree, 1.0)[:3], atol=1e-5)
    # subtrees follow what looks best, so they need not find the optimum, but they go on as well
    result = search(world, np.arange(3), method="dvts", num_simulations=400)
    assert result.visits.sum(1).tolist() == [400, 400, 400]


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("rebase", {"balance": 0.0}, "balance is 0.0; it must be a positive number"),
        ("rebase", {"width": 0}, "width is 0"),
        ("dvts", {"subtrees": 0}, "subtrees is 0"),
        ("dvts", {"branching": 1.5}, "branching is 1.5"),
    ],
)
def test_settings_are_checked(method: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(Flattered(), np.array([[-1, 0]]), method=method, num_simulations=4, **given)
