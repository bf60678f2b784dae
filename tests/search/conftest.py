"""Worlds that the search tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.search.simulator import Evaluation, Transition


class TableWorld:
    """States are numbers; logits, rewards and next states come from [S, A] tables."""

    def __init__(
        self,
        logits: np.ndarray,
        value: np.ndarray,
        reward: np.ndarray,
        next_state: np.ndarray,
        terminal: np.ndarray,
        legal: np.ndarray | None = None,
    ) -> None:
        self.num_actions = logits.shape[1]
        self.logits, self.value, self.reward = logits, value, reward
        self.next_state, self.terminal = next_state, terminal
        self.legal = np.ones(logits.shape, bool) if legal is None else legal
        self.calls = 0  # evaluator calls
        self.judged = 0  # states judged

    def expand(self, states: np.ndarray) -> Evaluation:
        self.calls += 1
        self.judged += len(states)
        assert not self.terminal[states].any(), "a terminal state was sent to the evaluator"
        return Evaluation(self.logits[states], self.value[states], self.legal[states])

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        assert not self.terminal[states].any(), "a terminal state was stepped"
        assert self.legal[states, actions].all(), "an illegal action was taken"
        after = self.next_state[states, actions]
        return Transition(after, self.reward[states, actions], self.terminal[after])


def random_world(seed: int, *, states: int = 300, actions: int = 6, masks: bool = True) -> TableWorld:
    """Returns a world of random tables, with terminals and illegal actions."""
    rng = np.random.default_rng(seed)
    shape = (states, actions)
    legal = rng.random(shape) < 0.8 if masks else np.ones(shape, bool)
    legal[np.arange(states), rng.integers(0, actions, states)] = True
    terminal = rng.random(states) < 0.1
    return TableWorld(
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=states).astype(np.float32),
        rng.normal(size=shape).astype(np.float32),
        rng.integers(0, states, shape),
        terminal,
        legal,
    )


def random_tree(
    seed: int, *, roots: int = 4, depth: int = 4, branching: int = 4, bounded: bool = True
) -> dict[str, Any]:
    """Returns the flat arrays of a closed random tree: each node has 1 to `branching` children, leaves are terminal."""
    rng = np.random.default_rng(seed)
    first, count, level = [-1] * roots, [0] * roots, list(range(roots))
    for _ in range(depth):
        below = []
        for node in level:
            width = int(rng.integers(1, branching + 1))
            first[node], count[node] = len(first), width
            below += range(len(first), len(first) + width)
            first += [-1] * width
            count += [0] * width
        level = [node for node in below if rng.random() < 0.85] or below
    size = len(first)
    counts = np.asarray(count)
    reward = rng.random(size) if bounded else rng.normal(size=size) * 10
    return {
        "first_child": np.asarray(first, np.int32),
        "child_count": counts.astype(np.uint16),
        "terminal": counts == 0,
        "reward": reward.astype(np.float32),
        "prior_logits": rng.normal(size=size).astype(np.float32),
        "value": rng.normal(size=size).astype(np.float32) * 0.3,
    }


def optimum(tree: dict[str, Any], discount: float) -> np.ndarray:
    """Returns the exact value of every node, float64 [N], by backward induction over a `random_tree`."""
    first, count = tree["first_child"], tree["child_count"]
    value = np.zeros(len(first))
    for node in range(len(first) - 1, -1, -1):
        if count[node]:
            below = slice(first[node], first[node] + int(count[node]))
            value[node] = (tree["reward"][below].astype(float) + discount * value[below]).max()
    return value


class TreeWorld(TableWorld):
    """A closed tree behind the simulator protocol; states are node numbers."""

    def __init__(self, tree: dict[str, Any], *, num_actions: int | None = None) -> None:
        widest = int(tree["child_count"].max()) if num_actions is None else num_actions
        first, count = tree["first_child"].astype(int), tree["child_count"].astype(int)
        columns = np.arange(widest)
        legal = columns < count[:, None]
        child = np.where(legal, first[:, None] + columns, 0)
        super().__init__(
            np.where(legal, tree["prior_logits"][child], np.float32(0)),
            tree["value"],
            tree["reward"][child],
            child,
            tree["terminal"],
            legal,
        )


@pytest.fixture
def worlds() -> Any:
    """The helpers of this file, for tests (test folders are no packages)."""

    class Helpers:
        TableWorld = TableWorld
        TreeWorld = TreeWorld
        random_world = staticmethod(random_world)
        random_tree = staticmethod(random_tree)
        optimum = staticmethod(optimum)

    return Helpers
