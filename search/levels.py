"""Methods that go down level by level, all paths of a root abreast: reward-balanced search and diverse subtrees.

Each round every state that is still open gets some children, drawn from the policy without repetition; a rule says how
many, and which of the children go on. Letters: B roots, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from treegym.search.checks import from_zero, positive
from treegym.search.paths import CheckedWorld, Tally, found_on, log_policy, root_streams, trail_of
from treegym.search.simulator import SearchResult, Simulator
from treegym.search.states import StateStore, count

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


def level_search(
    simulator: Simulator,
    states: Any,
    level: Level,
    *,
    num_simulations: int,
    seed: int,
    root_ids: np.ndarray | None,
    discount: float,
    model_calls: int | None,
    seconds: float | None,
    answers: int,
) -> SearchResult:
    """Goes down by a rule until the budget is spent; plays the move of the best path that ended.

    Paths that ended before the budget are followed by new ones from the root, with other draws.
    """
    budget, discount = positive("num_simulations", num_simulations), from_zero("discount", discount, 1.0)
    world = CheckedWorld(simulator, model_calls=model_calls, seconds=seconds)
    given = world.roots(states)
    prior = log_policy(given)
    size, actions = prior.shape
    streams = root_streams(seed, root_ids, size)
    tally, trail = Tally(size, actions), trail_of(answers, states, given)
    store = StateStore(states, size * (budget + 1))
    store.put(np.arange(count(states)), states)
    starts = [Stand(b, -1, 0, 0.0, 1.0, float(given.value[b]), prior[b]) for b in range(size)]
    fronts = [[start] for start in starts]
    finished: list[set[int]] = [set() for _ in range(size)]
    ended_paths = [0] * size
    hopes: dict[int, tuple[int, int, float]] = {}  # what states look like that were not looked beyond
    used = size
    while not world.spent:
        rounds: list[tuple[int, Stand, int, int]] = []  # root, parent, action, subtree
        for b, front in enumerate(fronts):
            room = budget - int(tally.evaluations[b])
            if room <= 0:
                fronts[b] = []
                continue
            if not front:  # every path of the last descent has ended
                front, finished[b], ended_paths[b] = [starts[b]], set(), 0
            pairs = []
            for stand, width in zip(front, level.allot(front, ended_paths[b]).tolist(), strict=True):
                noisy = stand.log_prior + streams[b].gumbel(size=actions)
                drawn = np.argsort(-noisy, kind="stable")[:width]
                for k, action in enumerate(drawn[np.isfinite(stand.log_prior[drawn])].tolist()):
                    pairs.append((b, stand, action, level.group(stand, k)))
            rounds += pairs[:room]
            tally.evaluations[b] += len(pairs[:room])  # charged as planned, ended or not
            fronts[b] = []
        if not rounds:
            break
        parents = np.array([stand.number for _, stand, _, _ in rounds])
        chosen = np.array([action for _, _, action, _ in rounds], np.int32)
        moved = world.step(store.get(parents), chosen)
        ended = moved.terminated
        numbers = np.arange(used, used + len(rounds))
        used += len(rounds)
        store.put(numbers, moved.states)
        alive = np.flatnonzero(~ended)
        worth = np.zeros(len(rounds))
        log_priors = np.zeros((len(rounds), actions))
        if len(alive):
            judged = world.expand(store.get(numbers[alive]))
            worth[alive], log_priors[alive] = judged.value, log_policy(judged)
        if trail is not None:
            trail.add(parents, chosen, moved, worth)
        for i, (b, stand, action, group) in enumerate(rounds):
            gained = stand.gained + stand.weight * float(moved.reward[i])
            weight = stand.weight * discount
            first = action if stand.first < 0 else stand.first
            score = gained + weight * float(worth[i])
            hopes.pop(stand.number, None)
            if ended[i]:
                tally.add(b, first, score)
                finished[b].add(group)
                ended_paths[b] += 1
            else:
                tally.visits[b, first] += 1
                hopes[int(numbers[i])] = (b, first, score)
                fronts[b].append(Stand(int(numbers[i]), first, group, gained, weight, score, log_priors[i]))
        for b in {b for b, *_ in rounds}:
            fronts[b] = level.keep(fronts[b], finished[b])
    unfinished = [bool(np.isneginf(row).all()) for row in tally.best]
    for b, first, score in hopes.values():
        if unfinished[b]:  # what states look like decides only where no path has ended
            tally.best[b, first] = max(tally.best[b, first], score)
    return tally.result(prior, answers=found_on(trail, answers, discount))
