"""Actions proposed anew for every state: lists of their own, draws from a range, and what search makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Transition, names
from treegym.search.proposals import Proposals, ProposedWorld, search_proposed
from treegym.search.settings import TREE_RULES


class Lines:
    """A text of three lines, each "add n"; of every state other lines are proposed. The end pays for a sum of 10."""

    def propose(self, states: list[list[str]]) -> Proposals:
        actions = [[f"add {n}" for n in range(1, 3 + len(text))] for text in states]
        return Proposals(actions, [np.zeros(len(lines)) for lines in actions], np.zeros(len(states)))

    def step(self, states: list[list[str]], actions: list[str]) -> Transition:
        after = [[*text, line] for text, line in zip(states, actions, strict=True)]
        ended = np.array([len(text) == 3 for text in after])
        sums = np.array([sum(int(line.split()[1]) for line in text) for text in after])
        return Transition(after, np.where(ended, -abs(sums - 9) / 9.0, 0.0), ended)


@pytest.mark.parametrize("method", [name for name in names() if name not in ("greedy", "sample")])
def test_lines_are_nodes_for_every_method(method: str) -> None:
    extra: dict[str, Any] = {"temperature": 1.0} if method == "lookahead" else {}
    extra |= {"solve": True} if method in TREE_RULES else {}
    result, lines = search_proposed(
        Lines(), [[], ["add 1"]], most=6, num_simulations=400, method=method, answers=3, **extra
    )
    assert lines[0] in ("add 1", "add 2")
    assert lines[1] in ("add 1", "add 2", "add 3")
    assert result.answers is not None
    best = result.answers.finished[0][0]
    assert best.value == pytest.approx(0.0)
    assert sum(int(line.split()[1]) for line in best.states[-1].state) == 9  # 2 + 3 + 4


class Range:
    """Any number from 0 to 1 may be chosen, once; it pays 1 - |x - 0.7|."""

    def __init__(self, *, correct: bool = True) -> None:
        self.rng, self.correct = np.random.default_rng(0), correct

    def propose(self, states: list[Any]) -> Proposals:
        drawn = [self.rng.random(40) ** 2 for _ in states]  # more of them near 0; the policy is uniform
        density = [np.log(0.5) - 0.5 * np.log(x) for x in drawn]
        return Proposals(drawn, [np.zeros(40)] * len(drawn), np.zeros(len(drawn)), density if self.correct else None)

    def step(self, states: list[Any], actions: list[Any]) -> Transition:
        x = np.array(actions, float)
        return Transition(actions, 1 - abs(x - 0.7), np.ones(len(x), bool))


def test_draws_are_weighed_by_what_the_policy_thinks_of_them() -> None:
    # under a uniform policy the mean of x is 1/2, however the proposals were drawn; of u^2 it is 1/3
    means = {}
    for correct in (True, False):
        world = ProposedWorld(Range(correct=correct), most=40)
        offers = world.roots([None] * 400)
        given = world.expand(offers)
        weight = np.exp(given.prior_logits - given.prior_logits.max(1, keepdims=True))
        x = np.array([offer.actions for offer in offers])
        means[correct] = float((weight * x).sum() / weight.sum(1, keepdims=True).sum())
    assert means[False] == pytest.approx(1 / 3, abs=0.02)
    assert means[True] == pytest.approx(0.5, abs=0.02)


def test_a_continuous_range_is_searched() -> None:
    result, chosen = search_proposed(Range(), [None] * 5, most=40, num_simulations=120, method="uct")
    assert np.abs(np.array(chosen) - 0.7).mean() < 0.08  # one draw alone is 0.4 away on the mean
    assert (result.visits.sum(1) == 120).all()


def test_counts_say_how_often_an_action_was_drawn() -> None:
    class Twice(Lines):
        def propose(self, states: list[list[str]]) -> Proposals:
            plain = super().propose(states)
            half = [np.log([0.5, 0.5])] * len(states)
            actions = [lines[:2] for lines in plain.actions]
            return Proposals(actions, half, plain.value, half, [np.array([3, 1])] * len(states))

    world = ProposedWorld(Twice(), most=2)
    logits = world.expand(world.roots([[]])).prior_logits[0]
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), [0.75, 0.25], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"actions": [["a", "a"], ["b"]]}, "action 1 proposed for row 0 is there already"),
        ({"actions": [["a"], []]}, "0 actions were proposed for row 1; expected from 1 to 2"),
        ({"actions": [["a"], ["a", "b", "c"]]}, "3 actions were proposed for row 1"),
        ({"actions": [["a"]]}, "proposed 1 rows of actions for 2 states"),
        ({"log_policy": [[0.0, 0.0], [0.0]]}, r"log_policy of row 0 has shape \(2,\); expected \(1,\)"),
        ({"log_sampled": [[0.0], [np.nan]]}, "log_sampled of row 1 is NaN"),
        ({"counts": [[0], [1]]}, "counts of row 0 hold 0"),
        ({"value": [0.0]}, "1 rows of value for 2 states"),
    ],
)
def test_what_is_proposed_is_checked(given: dict[str, Any], message: str) -> None:
    class Wrong(Lines):
        def propose(self, states: list[list[str]]) -> Proposals:
            right = {"actions": [["a"], ["b"]], "log_policy": [[0.0], [0.0]], "value": [0.0, 0.0]}
            return Proposals(**{**right, **given})

    with pytest.raises(ConfigError, match=message):
        search_proposed(Wrong(), [[], []], most=2, num_simulations=4, method="puct")
