from __future__ import annotations

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.tree.flags import END
from treegym.tree.solve import best_path, solve
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import TokenTree


def test_hand_worked_optimum(hand_made: TokenTree) -> None:
    # Entering a node costs 0.1; a correct end pays 1 on top. b<end>: 1 - 0.2 = 0.8; cab<end>: 1 - 0.4 = 0.6.
    reward = np.nan_to_num(hand_made.verdict) - 0.1
    solution = solve(hand_made, reward)
    assert solution.value[0] == pytest.approx(0.8)
    assert best_path(hand_made, solution.best_child, 0) == [2, 5]
    assert solution.value[3] == pytest.approx(1 - 0.3)
    assert solution.value[1] == pytest.approx(-0.2)
    assert solution.shortest.tolist() == [2, -1, 1, 3, -1, 0, 2, -1, 1, 0]
    assert solution.reachable.tolist() == [True, False, True, True, False, True, True, False, True, True]


def test_discount_and_budget(hand_made: TokenTree) -> None:
    reward = np.nan_to_num(hand_made.verdict)
    # With discount 0.5 the end "b<end>" is one step after the first: worth 0.5 at the root.
    assert solve(hand_made, reward, discount=0.5).value[0] == pytest.approx(0.5)
    # With one token of budget no end is reached.
    short = solve(hand_made, reward, max_depth=1)
    assert short.value[0] == 0
    assert short.shortest[0] == -1


def _brute_force(tree: TokenTree, reward: np.ndarray, discount: float, node: int) -> float:
    if tree.flags[node] & END or not tree.child_count[node]:
        return 0.0
    return max(reward[c] + discount * _brute_force(tree, reward, discount, c) for c in tree.children(node))


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_equals_exhaustive_search(synthetic: TokenTree, discount: float) -> None:
    reward = np.random.default_rng(0).normal(size=synthetic.size)
    solution = solve(synthetic, reward, discount=discount)
    for root in synthetic.root_node[:10]:
        assert solution.value[root] == pytest.approx(_brute_force(synthetic, reward, discount, root))
        path = best_path(synthetic, solution.best_child, int(root))
        walked = sum(reward[node] * discount**step for step, node in enumerate(path))
        assert walked == pytest.approx(solution.value[root])


def test_a_bad_reward_table_is_refused(hand_made: TokenTree) -> None:
    with pytest.raises(ConfigError, match="shape"):
        solve(hand_made, np.zeros(3))
    with pytest.raises(ConfigError, match="node 2 is NaN"):
        solve(hand_made, np.where(np.arange(10) == 2, np.nan, 0.0))
    for discount in (np.nan, np.inf, -0.1, "much"):
        with pytest.raises(ConfigError, match="the discount is"):
            solve(hand_made, np.zeros(10), discount=discount)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(12))
def test_equals_exhaustive_search_with_detected_ends_and_a_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = synthetic_tree(roots=2, depth=int(rng.integers(1, 6)), branching=int(rng.integers(2, 5)), seed=seed)
    reward, discount, budget = rng.normal(size=tree.size), float(rng.choice([0.0, 0.9, 1.0])), int(rng.integers(1, 7))
    ends = ((tree.flags & END) != 0) | ((rng.random(tree.size) < 0.1) & (tree.depth > 0))
    right = rng.random(tree.size) < 0.5
    found = solve(tree, reward, discount=discount, terminal=ends, correct=right, max_depth=budget)

    def best(node: int) -> tuple[float, float]:
        """Returns value and fewest steps to a correct end."""
        if ends[node]:
            return 0.0, 0.0 if right[node] else np.inf
        below = [(child, *best(child)) for child in tree.children(node)] if tree.depth[node] < budget else []
        value = max((reward[child] + discount * worth for child, worth, _ in below), default=0.0)
        return value, min((1.0 + steps for *_, steps in below), default=np.inf)

    for node in range(tree.size):
        value, steps = best(node)
        assert found.value[node] == pytest.approx(value)
        assert found.shortest[node] == (-1 if np.isinf(steps) else steps)
