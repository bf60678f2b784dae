"""The answers a search found: whole paths and what they are worth, for every method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Transition, names, search
from treegym.search.answers import vote
from treegym.search.closed import ClosedTree
from treegym.search.simulator import Answer

SEARCHING = [name for name in names() if name not in ("greedy", "sample")]


def walked(world: Any, root: int, answer: Answer, discount: float) -> tuple[float, bool]:
    """What the moves of an answer really come to."""
    state, total, weight, ended = root, 0.0, 1.0, False
    for action, claimed in zip(answer.actions.tolist(), answer.states.tolist(), strict=True):
        moved = world.step(np.array([state]), np.array([action]))
        state, ended = int(moved.states[0]), bool(moved.terminated[0])
        total += weight * float(moved.reward[0])
        weight *= discount
        assert state == claimed
    return total if ended else total + weight * float(world.value[state]), ended


@pytest.mark.parametrize("method", SEARCHING)
def test_answers_are_paths_and_worth_what_they_say(worlds: Any, method: str) -> None:
    world = worlds.random_world(3)
    roots = np.flatnonzero(~world.terminal)[:3]
    result = search(world, roots, method=method, num_simulations=60, discount=0.9, answers=5)
    assert result.answers is not None
    for root, best, finished in zip(roots.tolist(), *result.answers, strict=True):
        assert 1 <= len(best) <= 5
        assert len({answer.actions.tobytes() for answer in best}) == len(best)
        assert [answer.value for answer in best] == sorted((answer.value for answer in best), reverse=True)
        assert all(answer.ended for answer in finished)
        for answer in (*best, *finished):
            value, ended = walked(world, root, answer, 0.9)
            assert answer.value == pytest.approx(value, abs=1e-4)
            assert answer.ended == ended


@pytest.mark.parametrize("method", ["puct", "gumbel", "uct", "beam", "best_first", "depth_first", "ab_mcts"])
def test_with_room_for_the_whole_tree_the_best_answer_is_the_optimum(worlds: Any, method: str) -> None:
    tree = worlds.random_tree(1, roots=3, depth=3, branching=3)
    tree["value"][:] = 0
    extra = {"width": 100} if method in ("beam", "best_first", "depth_first") else {}
    extra |= {"solve": True} if method in ("puct", "gumbel", "uct") else {}
    world = worlds.TreeWorld(tree)
    result = search(world, np.arange(3), method=method, num_simulations=400, answers=100, **extra)
    found = [answers[0].value for answers in result.answers.finished]
    np.testing.assert_allclose(found, worlds.optimum(tree, 1.0)[:3], atol=1e-5)
    ends = {answer.states[-1] for answers in result.answers.finished for answer in answers}
    assert ends <= set(np.flatnonzero(tree["terminal"]).tolist())


def test_answers_change_nothing_about_the_search(worlds: Any) -> None:
    world = worlds.random_world(4)
    roots = np.flatnonzero(~world.terminal)[:4]
    for method in SEARCHING:
        plain, asked = (search(world, roots, method=method, num_simulations=20, answers=k) for k in (0, 3))
        np.testing.assert_array_equal(plain.action, asked.action)
        np.testing.assert_array_equal(plain.visits, asked.visits)
        assert plain.answers is None


def test_a_closed_tree_gives_answers_too(worlds: Any) -> None:
    tree = worlds.random_tree(2, roots=1, depth=3, branching=3)
    world = ClosedTree(**tree, num_actions=3)
    found = world.search(np.array([0]), method="uct", num_simulations=100, answers=2)
    assert found.answers is not None
    assert found.answers.finished[0][0].ended


def test_without_search_the_answer_is_where_one_stands(worlds: Any) -> None:
    world = worlds.random_world(1)
    for method in ("greedy", "sample"):
        found = search(world, np.array([0]), method=method, num_simulations=1, answers=3).answers
        assert found is not None
        assert len(found.best[0][0].actions) == 0
        assert found.best[0][0].value == pytest.approx(float(world.value[0]))
        assert found.finished == [[]]


class Digits:
    """A state is a text of up to two digits; "12" pays 1, other ends 0.25."""

    num_actions = 3

    def expand(self, states: list[str]) -> Evaluation:
        size = len(states)
        return Evaluation(np.zeros((size, 3)), np.zeros(size), np.ones((size, 3), bool))

    def step(self, states: list[str], actions: np.ndarray) -> Transition:
        after = [state + str(action) for state, action in zip(states, actions.tolist(), strict=True)]
        ended = np.array([len(text) == 2 for text in after])
        paid = np.array([1.0 if text == "12" else 0.25 if len(text) == 2 else 0.0 for text in after])
        return Transition(after, paid, ended)


def test_votes_over_answers() -> None:
    found = search(Digits(), [""], method="uct", num_simulations=100, answers=9, solve=True).answers
    assert found is not None
    answers = found.finished[0]
    assert (answers[0].states, answers[0].value) == (["1", "12"], 1.0)
    assert len(answers) == 9
    # last digits: three answers each; by value "2" has 1 + 2 * .25 = 1.5 of 1 + 8 * .25 = 3
    assert vote(answers, lambda states: states[0][-1]) == [(d, pytest.approx(1 / 3)) for d, _ in vote(answers, last)]
    assert vote(answers, last, by="value")[0] == ("2", pytest.approx(0.5))
    assert vote(answers, lambda states: None) == []
    with pytest.raises(ConfigError, match="by is 'mean'"):
        vote(answers, last, by="mean")


def last(states: list[str]) -> str:
    return states[0][-1]


def test_answers_that_cannot_be_given_are_refused(worlds: Any) -> None:
    world = worlds.random_world(1)
    with pytest.raises(ConfigError, match="answers is -1; it must be a whole number of at least 0"):
        search(world, np.array([0]), method="puct", num_simulations=4, answers=-1)
    with pytest.raises(ConfigError, match="answers are paths that one player takes"):
        search(world, np.array([0]), method="puct", num_simulations=4, answers=1, discount=-1.0)
