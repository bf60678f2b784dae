"""What is proven counts: at no evaluator's cost, in the move, the target and the visits, and never to the worse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.search import Evaluation, Options, Session, Transition, search, search_closed

RULES = ["puct", "gumbel", "uct", "similarity", "ments", "rents"]


class OneEnd:
    """Move 0 pays 1 and ends the episode; 1 and 2 lead into a world without end that pays nothing."""

    num_actions = 3

    def __init__(self) -> None:
        self.judged = 0

    def expand(self, states: np.ndarray) -> Evaluation:
        self.judged += len(states)
        size = len(states)
        return Evaluation(np.zeros((size, 3), np.float32), np.zeros(size, np.float32), np.ones((size, 3), bool))

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        first = (states == 0) & (actions == 0)
        return Transition(states * 3 + actions + 1, first.astype(np.float32), first)


@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize("method", RULES)
def test_a_proven_move_is_played_visited_and_learned(method: str, leaves: int) -> None:
    result = search(OneEnd(), np.array([0]), method=method, num_simulations=64, solve=True, leaves=leaves)
    assert result.action[0] == 0
    assert result.q[0, 0] == 1.0
    if method != "similarity":  # with equal cosines its visits hardly depend on what is found
        assert result.policy[0].argmax() == 0
        assert result.visits[0].argmax() == 0


def tree_of(worlds: Any, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """A tree of some 230 nodes, and its exact values; some pay at the ends alone, some estimates are rough."""
    tree = worlds.random_tree(seed, roots=1, depth=6, branching=4)
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        tree["reward"] = np.where(tree["terminal"], tree["reward"], 0).astype(np.float32)
    exact = worlds.optimum(tree, 1.0)
    if seed % 2:
        tree["value"] = (exact + rng.normal(size=len(exact)) * 0.5).astype(np.float32)
    return tree, exact


@pytest.mark.slow
@pytest.mark.parametrize("method", RULES)
def test_solving_never_makes_play_worse(worlds: Any, method: str) -> None:
    trees = [tree_of(worlds, seed) for seed in range(160)]
    scale = {"gumbel_scale": 0.0} if method == "gumbel" else {}
    for budget in (16, 64, 256, 1024):
        lost = np.zeros((2, len(trees)))
        for i, (tree, exact) in enumerate(trees):
            for solve in (False, True):
                found = search_closed(
                    **tree, roots=np.array([0]), num_simulations=budget, method=method, solve=solve, seed=i, **scale
                )
                child = tree["first_child"][0] + found.action[0]
                lost[int(solve), i] = exact[0] - tree["reward"][child] - exact[child]
        assert lost[1].mean() <= lost[0].mean() + 1e-6, f"at {budget} simulations"
        if budget == 1024:
            assert lost[1].max() <= 1e-5  # all of them are proven by then


@pytest.mark.parametrize("method", RULES)
def test_what_is_proven_is_exact_and_the_target_leaves_out_what_is_beaten(worlds: Any, method: str) -> None:
    for seed in range(8):
        tree, exact = tree_of(worlds, seed)
        session = Session(
            worlds.TreeWorld(tree), np.array([0]), method=method, num_simulations=60, options=Options(solve=True)
        )
        result, trees = session.run(), session.planner.trees
        first = int(tree["first_child"][0])
        proven: list[tuple[int, float]] = []
        for slot in range(int(trees.width[0, 0])):
            child = trees.child[0, 0, slot]
            if child >= 0 and trees.status[0, child] & 2:
                action = int(trees.action[0, 0, slot])
                worth = float(tree["reward"][first + action] + exact[first + action])
                assert result.q[0, action] == pytest.approx(worth, abs=1e-5)
                proven.append((action, worth))
        best = max((worth for _, worth in proven), default=-np.inf)
        for action, worth in proven:
            if worth < best - 1e-5:
                assert result.policy[0, action] == 0.0
                assert result.action[0] != action


def test_evaluations_go_where_nothing_is_proven_yet() -> None:
    """The rule counts the proven move again and again, and every simulation still judges a new state."""
    world = OneEnd()
    result = search(world, np.array([0]), method="puct", num_simulations=100, solve=True)
    assert result.visits[0, 0] > 50
    assert world.judged == 100  # the root's, and every simulation's but the one that found the end
