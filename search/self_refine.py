"""MCTS self-refine: any answer found so far may be refined next (https://arxiv.org/abs/2406.07394).

A state is a whole answer, a move refines it, and the tree is not descended: of all states that are not fully refined
the one with the greatest UCT is, where

    UCT(a) = Q(a) + c sqrt((ln N(parent) + 1) / N(a)),   Q(a) = (min R(a) + mean R(a)) / 2

R(a) are the judgements of a, as many as `judgements`, since a judge that is drawn from a language model differs from
time to time. A new child counts for every state above it: Q(a) <- (Q(a) + max Q(children)) / 2, N(a) <- N(a) + 1. A
state is fully refined once it has `refinements` children and one of them is better than it.

A judgement is here the return of the path: rewards so far and the evaluator's value. States that ended are not refined.
"""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np

from treegym.search.checks import from_zero, positive
from treegym.search.plan import Limits, Plan
from treegym.search.simulator import SearchResult, Simulator

__all__ = ["self_refine"]


class _Answer:
    """A judged answer."""

    def __init__(
        self, number: int, parent: _Answer | None, first: int, gained: float, weight: float, untried: list[int]
    ) -> None:
        self.number, self.parent, self.first = number, parent, first
        self.gained, self.weight, self.untried = gained, weight, untried
        self.q, self.visits = 0.0, 1
        self.children: list[_Answer] = []

    def judged(self, returns: list[float]) -> None:
        """Takes the judgements."""
        self.q = (min(returns) + sum(returns) / len(returns)) / 2

    def is_open(self, refinements: int) -> bool:
        """Returns whether it may be refined."""
        enough = len(self.children) >= refinements and max(child.q for child in self.children) > self.q
        return bool(self.untried) and not enough

    def uct(self, c_explore: float) -> float:
        """Returns how promising it is to refine."""
        above = self.visits if self.parent is None else self.parent.visits
        return self.q + c_explore * math.sqrt((math.log(above) + 1) / self.visits)

    def count(self) -> None:
        """Counts a new child, up to the root."""
        node: _Answer | None = self
        while node is not None:
            node.q = (node.q + max(child.q for child in node.children)) / 2
            node.visits += 1
            node = node.parent


def self_refine(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    refinements: int = 2,
    c_explore: float = 1.4,
    judgements: int = 1,
    **limits: Unpack[Limits],
) -> SearchResult:
    """Searches with MCTS self-refine; plays the move that leads to the best path found.

    Args:
        refinements: children after which a state is fully refined, if one of them is better.
        c_explore: c of the rule.
        judgements: how often a new state is judged; each counts as one of `num_simulations`.
        **limits: see `treegym.search.plan.Limits`.
    """
    refinements, judgements = positive("refinements", refinements), positive("judgements", judgements)
    c_explore = from_zero("c_explore", c_explore, 1e9)
    plan = Plan(simulator, states, num_simulations, **limits)
    known: list[list[_Answer]] = []
    for b, value in enumerate(plan.given.value.tolist()):
        root = _Answer(b, None, -1, 0.0, 1.0, plan.drawn(b, plan.prior[b], plan.actions))
        root.judged([value])
        known.append([root])
    hopes: dict[tuple[int, int], float] = {}  # (root, first move) -> the best that a state not ended looks like
    while not plan.world.spent:
        rounds = []
        for b, answers in enumerate(known):
            open_ = [answer for answer in answers if answer.is_open(refinements)]
            if open_ and plan.room(b) >= judgements:
                chosen = max(open_, key=lambda answer: answer.uct(c_explore))
                rounds.append((b, chosen, chosen.untried.pop(0)))
                plan.tally.evaluations[b] += judgements  # charged as planned, ended or not
        if not rounds:
            break
        parents = np.array([answer.number for _, answer, _ in rounds])
        grown = plan.grow(parents, np.array([action for _, _, action in rounds], np.int32))
        alive = np.flatnonzero(~grown.ended)
        worth = [grown.worth]
        for _ in range(judgements - 1 if len(alive) else 0):
            again = np.zeros(len(rounds))
            again[alive] = plan.world.expand(plan.states(grown.numbers[alive])).value
            worth.append(again)
        for i, (b, answer, action) in enumerate(rounds):
            first = action if answer.first < 0 else answer.first
            gained = answer.gained + answer.weight * float(grown.reward[i])
            weight, ended = answer.weight * plan.discount, bool(grown.ended[i])
            untried = [] if ended else plan.drawn(b, grown.log_prior[i], plan.actions)
            child = _Answer(int(grown.numbers[i]), answer, first, gained, weight, untried)
            child.judged([gained + weight * float(judged[i]) for judged in worth])
            if ended:
                plan.tally.add(b, first, child.q)
            else:
                plan.tally.visits[b, first] += 1
                hopes[b, first] = max(child.q, hopes.get((b, first), -math.inf))
            answer.children.append(child)
            answer.count()
            known[b].append(child)
    for (b, first), q in hopes.items():  # an answer need not have ended to be one
        plan.tally.best[b, first] = max(plan.tally.best[b, first], q)
    return plan.result()
