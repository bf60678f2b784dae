from __future__ import annotations

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.tree.solve import solve
from treegym.tree.token_tree import TokenTree
from treegym.tree.values import child_probabilities, reach, renormalised, values


def test_hand_worked_values(hand_made: TokenTree) -> None:
    # Ends: "b<end>" (node 5) and "cab<end>" (9) are correct. A table of 1/2, 1/4, 1/4 for a, b, c: V(root) = 1/4 + 1/4.
    table = np.ones(10)
    table[[1, 2, 3]] = 0.5, 0.25, 0.25
    found = hand_made.values(table)
    assert found.value.tolist() == [0.5, 0, 1, 1, 0, 0, 1, 0, 1, 0]
    assert found.action_value.tolist() == [0.5, 0, 1, 1, 0, 1, 1, 0, 1, 1]
    assert found.advantage.tolist() == [0, -0.5, 0.5, 0.5, 0, 0, 0, 0, 0, 0]
    # Discount 1/2: "b<end>" pays 1 one step after b: V(b) = 1, Q(b) = 1/2; V(ca) = 1/2, V(c) = 1/4, Q(c) = 1/16 (two
    # more steps); V(root) = 1/4 * 1/2 + 1/4 * 1/8 = 5/32, as V(cab) = 1, V(ca) = 1/2, V(c) = 1/4, Q(c) = 1/8.
    assert hand_made.values(table, discount=0.5).value[[0, 2, 3, 6, 8]].tolist() == [5 / 32, 1, 0.25, 0.5, 1]


def test_policies_by_name(hand_made: TokenTree) -> None:
    # The primary: e^-0.5, e^-1, e^-2 over their sum 1.109746; b and c lead to correct ends.
    weights = np.exp([-0.5, -1.0, -2.0])
    assert hand_made.values().value[0] == pytest.approx((weights[1:] / weights.sum()).sum())
    assert hand_made.values("uniform").value[0] == pytest.approx(2 / 3)
    # Teacher x says log 0.75 of b and log 0.25 of a, nothing of c; elsewhere it is silent and the primary chooses.
    hand_made.teacher_logp[[1, 2], 0] = np.log([0.25, 0.75])
    chosen = child_probabilities(hand_made, "x")
    assert chosen[[1, 2, 3]] == pytest.approx([0.25, 0.75, 0.0], abs=1e-3)
    assert chosen[4:].tolist() == [1.0] * 6
    assert reach(hand_made, chosen)[[5, 9]] == pytest.approx([0.75, 0.0], abs=1e-3)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_equals_recursion_and_is_at_most_the_optimum(synthetic: TokenTree, discount: float) -> None:
    rng = np.random.default_rng(0)
    reward = rng.normal(size=synthetic.size)
    table = renormalised(synthetic, rng.normal(size=synthetic.size))
    found = values(synthetic, table, reward=reward, discount=discount)

    def worth(node: int) -> float:
        return sum(table[c] * (reward[c] + discount * worth(c)) for c in map(int, synthetic.children(node)))

    for root in synthetic.root_node[:10]:
        assert found.value[root] == pytest.approx(worth(int(root)))
    assert (found.value <= solve(synthetic, reward, discount=discount).value + 1e-9).all()
    # Advantages of siblings are 0 on average under the policy.
    parent = synthetic.parent
    mean = np.bincount(parent[parent >= 0], (table * found.advantage)[parent >= 0], minlength=synthetic.size)
    assert np.abs(mean).max() < 1e-12


def test_bad_policies_are_refused(hand_made: TokenTree) -> None:
    with pytest.raises(ConfigError, match=r"children of node 0 sum to 3, .*`renormalised`"):
        hand_made.values(np.ones(10))
    table = np.ones(10)
    table[[1, 2, 3]] = 1.5, -0.25, -0.25
    with pytest.raises(ConfigError, match="children of node 0 sum to 1, each at least 0"):
        hand_made.values(table)
    with pytest.raises(ConfigError, match=r"table of float64 \(3,\)"):
        hand_made.values(np.ones(3))
    with pytest.raises(ConfigError, match="Did you mean 'uniform'"):
        hand_made.values("unifrom")
    with pytest.raises(ConfigError, match="reward of node 4"):
        hand_made.values("uniform", reward=np.where(np.arange(10) == 4, np.inf, 0.0))
    with pytest.raises(ConfigError, match="scores of children"):
        renormalised(hand_made, np.full(10, np.nan))
