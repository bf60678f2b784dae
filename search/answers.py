"""The answers a search found: whole paths from a root, the best first, and votes over where they end.

A path is worth its discounted rewards, and, where it has not ended, the evaluator's opinion of where it stopped.
Letters: B roots, N states found, T moves of a path.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.search.simulator import Answer, Answers, Transition
from treegym.search.states import count, joined, take
from treegym.search.tree import TERMINAL, Nodes

__all__ = ["Trail", "of_trees", "vote"]


class Trail:
    """Every state that a search came to, and from where; states are numbered as they come, the B roots first."""

    def __init__(self, states: Any, value: np.ndarray) -> None:
        size = count(states)
        self._states: list[Any] = [states]
        self._parent: list[np.ndarray] = [np.full(size, -1)]
        self._action: list[np.ndarray] = [np.zeros(size, np.int32)]
        self._reward: list[np.ndarray] = [np.zeros(size)]
        self._ended: list[np.ndarray] = [np.zeros(size, np.bool_)]
        self._worth: list[np.ndarray] = [np.asarray(value, np.float64)]
        self._size, self.roots = size, size

    def add(self, parents: np.ndarray, actions: np.ndarray, moved: Transition, worth: np.ndarray) -> np.ndarray:
        """Notes a step from some states; ``worth`` is the evaluator's opinion of the states it led to, 0 at an end.

        Returns:
            The numbers of the new states, int64.
        """
        for kept, new in (
            (self._states, moved.states), (self._parent, np.asarray(parents)), (self._action, np.asarray(actions)),
            (self._reward, moved.reward), (self._ended, moved.terminated), (self._worth, np.asarray(worth, np.float64)),
        ):  # fmt: skip
            kept.append(new)
        numbers = np.arange(self._size, self._size + len(actions))
        self._size += len(actions)
        return numbers

    def answers(self, most: int, discount: float) -> Answers:
        """Returns at most so many answers of each root."""
        starts = np.cumsum([0, *map(len, self._parent)])

        def states_of(path: np.ndarray) -> Any:
            batch = np.searchsorted(starts, path, side="right") - 1
            return joined([take(self._states[b], np.array([n - starts[b]])) for b, n in zip(batch, path, strict=True)])

        return _best(
            np.concatenate(self._parent), np.concatenate(self._action), np.concatenate(self._reward),
            np.concatenate(self._ended), np.concatenate(self._worth), self.roots, most, discount, states_of,
        )  # fmt: skip


def of_trees(trees: Nodes, capacity: int, get: Callable[[np.ndarray], Any], most: int, discount: float) -> Answers:
    """Returns at most so many answers of each tree; ``get(numbers)`` returns states by root * capacity + node."""
    found = Answers([], [])
    for b, size in enumerate(trees.size[:, 0].tolist()):
        parent, action = np.full(size, -1), np.zeros(size, np.int32)
        child = np.where(np.arange(trees.child.shape[2]) < trees.width[b, :size, None], trees.child[b, :size], -1)
        node, slot = np.nonzero(child >= 0)
        below = child[node, slot]
        first = np.unique(below, return_index=True)[1]  # where several ways lead to a node, the first of them
        parent[below[first]], action[below[first]] = node[first], trees.action[b, node[first], slot[first]]
        ended = (trees.status[b, :size] & TERMINAL) > 0

        def states_of(path: np.ndarray, b: int = b) -> Any:
            return get(b * capacity + path)

        one = _best(
            parent, action, trees.reward[b, :size].astype(np.float64), ended, _worth(trees, b, size), 1, most, discount,
            states_of,
        )  # fmt: skip
        found.best.extend(one.best)
        found.finished.extend(one.finished)
    return found


def _worth(trees: Nodes, b: int, size: int) -> np.ndarray:
    return trees.raw[b, :size].astype(np.float64)


def _best(
    parent: np.ndarray,
    action: np.ndarray,
    reward: np.ndarray,
    ended: np.ndarray,
    worth: np.ndarray,
    roots: int,
    most: int,
    discount: float,
    states_of: Callable[[np.ndarray], Any],
) -> Answers:
    """Returns the best answers of some roots, states 0 .. roots - 1, by the parent of each state, an earlier one."""
    size = len(parent)
    root, gained, weight = np.arange(size), np.zeros(size), np.ones(size)
    waiting = np.flatnonzero(parent >= 0)
    known = parent < 0
    while len(waiting):  # level by level, so that a parent is known before its children
        ready = waiting[known[parent[waiting]]]
        if not len(ready):
            break  # what is left hangs on nothing
        above = parent[ready]
        root[ready], weight[ready] = root[above], weight[above] * discount
        gained[ready] = gained[above] + weight[above] * reward[ready]
        known[ready] = True
        waiting = waiting[~known[waiting]]
    score = gained + weight * np.where(ended, 0.0, worth)
    tip = known.copy()
    tip[parent[parent >= 0]] = False  # a state that was looked beyond is no answer
    found = Answers([], [])
    order = np.flatnonzero(tip)
    order = order[np.argsort(-score[order], kind="stable")]
    for b in range(roots):
        mine = order[root[order] == b]
        for kept, chosen in ((found.best, mine), (found.finished, mine[ended[mine]])):
            kept.append(_distinct(chosen, parent, action, score, ended, most, states_of))
    return found


def _distinct(
    tips: np.ndarray,
    parent: np.ndarray,
    action: np.ndarray,
    score: np.ndarray,
    ended: np.ndarray,
    most: int,
    states_of: Callable[[np.ndarray], Any],
) -> list[Answer]:
    kept: dict[bytes, Answer] = {}
    for tip in tips.tolist():
        if len(kept) == most:
            break
        path, at = [], tip
        while parent[at] >= 0:
            path.append(at)
            at = int(parent[at])
        numbers = np.array(path[::-1], np.int64)
        moves = action[numbers].astype(np.int32)
        if moves.tobytes() not in kept:
            states = states_of(numbers) if len(numbers) else None
            kept[moves.tobytes()] = Answer(moves, states, float(score[tip]), bool(ended[tip]))
    return list(kept.values())


def vote(
    answers: Iterable[Answer], name: Callable[[Any], Hashable], *, by: str = "count"
) -> list[tuple[Hashable, float]]:
    """Returns what answers say and the share of votes for it, the most first.

    Args:
        answers: such as ``result.answers.finished[0]``.
        name: what an answer says, by its last state (rows of one state), such as the number a text ends in; None to
            abstain.
        by: "count" (one vote each: self-consistency, https://arxiv.org/abs/2203.11171) or "value" (its value, not below
            0).
    """
    if by not in ("count", "value"):
        raise ConfigError(f"by is {by!r}; it must be 'count' or 'value'")
    votes: dict[Hashable, float] = {}
    for answer in answers:
        said = name(take(answer.states, np.array([len(answer.actions) - 1]))) if len(answer.actions) else None
        if said is not None:
            votes[said] = votes.get(said, 0.0) + (1.0 if by == "count" else max(answer.value, 0.0))
    total = sum(votes.values())
    ranked = sorted(votes.items(), key=lambda pair: -pair[1])
    return [(said, share / total if total > 0 else 0.0) for said, share in ranked]
