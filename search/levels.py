"""Methods that go down level by level, all paths of a root abreast: reward-balanced search and diverse subtrees.

Each round every state that is still open gets some children, drawn from the policy without repetition; a rule says how
many, and which of the children go on. Letters: B roots, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from treegym.search.plan import Plan
from treegym.search.simulator import SearchResult

__all__ = ["Level", "Stand", "level_search"]


class Stand(NamedTuple):
    """A judged state that paths go on from."""

    number: int  # where its state is kept
    first: int  # the move at the root that leads here, -1 at the root
    group: int  # which subtree it belongs to
    gained: float  # discounted rewards up to here
    weight: float  # discount ** depth
    score: float  # what the path through here looks like: gained + weight * value
    log_prior: np.ndarray  # [A] float64


class Level(NamedTuple):
    """The rule of a method."""

    allot: Callable[[list[Stand], int], np.ndarray]  # (open states, paths finished) -> children of each, int
    group: Callable[[Stand, int], int]  # (parent, which child of it) -> the child's subtree
    keep: Callable[[list[Stand], set[int]], list[Stand]]  # (children that go on, subtrees finished) -> those kept


def level_search(plan: Plan, level: Level) -> SearchResult:
    """Goes down by a rule until the budget is spent; plays the move of the best path that ended.

    Paths that ended before the budget are followed by new ones from the root, with other draws.
    """
    tally = plan.tally
    starts = [Stand(b, -1, 0, 0.0, 1.0, float(plan.given.value[b]), plan.prior[b]) for b in range(plan.size)]
    fronts = [[start] for start in starts]
    finished: list[set[int]] = [set() for _ in starts]
    ended_paths = [0] * plan.size
    hopes: dict[int, tuple[int, int, float]] = {}  # what states look like that were not looked beyond
    while not plan.world.spent:
        rounds: list[tuple[int, Stand, int, int]] = []  # root, parent, action, subtree
        for b, front in enumerate(fronts):
            room = plan.room(b)
            if room <= 0:
                fronts[b] = []
                continue
            if not front:  # every path of the last descent has ended
                front, finished[b], ended_paths[b] = [starts[b]], set(), 0
            pairs = []
            for stand, width in zip(front, level.allot(front, ended_paths[b]).tolist(), strict=True):
                for k, action in enumerate(plan.drawn(b, stand.log_prior, width)):
                    pairs.append((b, stand, action, level.group(stand, k)))
            rounds += pairs[:room]
            tally.evaluations[b] += len(pairs[:room])  # charged as planned, ended or not
            fronts[b] = []
        if not rounds:
            break
        parents = np.array([stand.number for _, stand, _, _ in rounds])
        grown = plan.grow(parents, np.array([action for _, _, action, _ in rounds], np.int32))
        for i, (b, stand, action, group) in enumerate(rounds):
            gained = stand.gained + stand.weight * float(grown.reward[i])
            weight = stand.weight * plan.discount
            first = action if stand.first < 0 else stand.first
            score = gained + weight * float(grown.worth[i])
            hopes.pop(stand.number, None)
            if grown.ended[i]:
                tally.add(b, first, score)
                finished[b].add(group)
                ended_paths[b] += 1
            else:
                number = int(grown.numbers[i])
                tally.visits[b, first] += 1
                hopes[number] = (b, first, score)
                fronts[b].append(Stand(number, first, group, gained, weight, score, grown.log_prior[i]))
        for b in {b for b, *_ in rounds}:
            fronts[b] = level.keep(fronts[b], finished[b])
    unfinished = [bool(np.isneginf(row).all()) for row in tally.best]
    for b, first, score in hopes.values():
        if unfinished[b]:  # what states look like decides only where no path has ended
            tally.best[b, first] = max(tally.best[b, first], score)
    return plan.result()
