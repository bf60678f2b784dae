"""Tree advantages on one small tree, worked by hand, and what they refuse."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import treegym
from treegym.agents.dapo import DAPO
from treegym.agents.draw_tree import episode_tree, forest
from treegym.agents.groups import group_centred, group_leave_one_out, group_normalised
from treegym.agents.tree_advantages import (
    ESTIMATORS,
    dapo,
    estimator,
    grpo,
    rloo,
    spo_chain,
    spo_tree,
    tree_grpo,
    treepo,
    treerl,
    treerl_code,
    treerpo,
    vine,
)
from treegym.errors import ConfigError

# A prompt 0 with segments 1 and 2; below 1 texts that end in 3 (right) and 4 (wrong), below 2 in 5 and 6 (both right).
# Means: V1 = 1/2, V2 = 1, V0 = 3/4; deviation of the returns 1, 0, 1, 1 with ddof 1: sqrt((3/16 + 9/16) / 3) = 1/2.
TREE = forest([-1, 0, 0, 1, 1, 2, 2], {3: 1.0, 4: 0.0, 5: 1.0, 6: 1.0})
ROOT2 = np.sqrt(2)


def test_group_methods_give_nodes_the_mean_over_their_texts() -> None:
    assert grpo(TREE, eps=0).advantage.tolist() == [0, -0.5, 0.5, 0.5, -1.5, 0.5, 0.5]
    assert grpo(TREE).weight.tolist() == [0, 2, 2, 1, 1, 1, 1]
    assert rloo(TREE).advantage == pytest.approx([0, -1 / 3, 1 / 3, 1 / 3, -1, 1 / 3, 1 / 3])
    even = forest([-1, 0, 0], {1: 1.0, 2: 1.0})
    assert dapo(even).weight.tolist() == [0, 0, 0]
    assert dapo(TREE).weight.tolist() == grpo(TREE).weight.tolist()


def test_spo_tree_trains_each_edge_once_and_drops_those_without_credit() -> None:
    credit = spo_tree(TREE)
    assert credit.advantage.tolist() == [0, -0.25, 0.25, 0.5, -0.5, 0, 0]
    assert credit.weight.tolist() == [0, 1, 1, 1, 1, 0, 0]
    # Deviations of siblings, ddof 0: 1/4 for 1/2 and 1; 1/2 for 1 and 0.
    assert spo_tree(TREE, divide=True).advantage.tolist() == [0, -1, 1, 1, -1, 0, 0]


def test_treerpo_variants() -> None:
    assert treerpo(TREE).advantage.tolist() == [0, -0.25, 0.25, 0.5, -0.5, 0, 0]
    # A floor of 1/2 is above the first siblings' deviation 1/4 and is just the second's.
    assert treerpo(TREE, variant="floored", floor=0.5).advantage.tolist() == [0, -0.5, 0.5, 1, -1, 0, 0]


def test_means_of_children_do_not_count_texts() -> None:
    # Segment 1 has one text (right), segment 2 three (wrong): leaves say 1/4, children 1/2.
    tree = forest([-1, 0, 0, 1, 2, 2, 2], {3: 1.0, 4: 0.0, 5: 0.0, 6: 0.0})
    assert tree.leaf_mean()[0] == 0.25
    assert tree.child_mean()[0] == 0.5


def test_treerl_in_both_forms() -> None:
    # Returns less the mean of the others are 4/3 of R - 3/4: nodes 0, -1/3, 1/3, 1/3, -1, 1/3, 1/3.
    paper = [0, -2 / 3 / ROOT2, 2 / 3 / ROOT2, 1, -1 - 2 / 3, 1 / 3, 1 / 3]
    assert treerl(TREE).advantage == pytest.approx(paper)
    # Scaled by the root of the texts: +-1/(3 sqrt 2) at 1 and 2.
    s = 1 / 3 / ROOT2
    code = [0, -2 * s, 2 * s, 2 / 3 + s, -2 + s, 2 / 3 - s, 2 / 3 - s]
    assert treerl_code(TREE).advantage == pytest.approx(code)
    # A chain's second segment has what its first has: the local part is 0 and the predecessor's advantage is taken.
    chain = forest([-1, 0, 1, 0], {2: 1.0, 3: 0.0})
    assert treerl_code(chain).advantage.tolist() == [0, 2, 2, -2]


def test_treepo() -> None:
    # Text 3: 1 - 3/4 and 1 - 1/2, on average 3/8; 4: -3/4 and -1/2, -5/8; 5 and 6: 1/4 and 0, 1/8.
    assert treepo(TREE).advantage.tolist() == [0, -0.125, 0.125, 0.375, -0.625, 0.125, 0.125]
    # By size of group 4 and 2: 3 gets (4/4 + 2/2) / 6 = 1/3, 4 gets -(3 + 1) / 6.
    assert treepo(TREE, weighted=True).advantage[[3, 4]] == pytest.approx([1 / 3, -2 / 3])


def test_tree_grpo() -> None:
    # Within the prompt 1/2 and -3/2. Within tree 1: mean 1/2, deviation 1/sqrt 2: +-1/sqrt 2; tree 2 is even.
    expected = [0, -0.5, 0.5, 0.5 + 1 / ROOT2, -1.5 - 1 / ROOT2, 0.5, 0.5]
    assert tree_grpo(TREE, eps=1e-12).advantage == pytest.approx(expected)


def test_vine_and_spo_chain() -> None:
    value = np.array([0.75, 0.5, 1.0, 1.0, 0.0, 1.0, 1.0])
    assert vine(TREE, value).advantage.tolist() == [0, -0.25, 0.25, 0.5, -0.5, 0, 0]
    # One chain of five tokens with probabilities 1, .5, .95, .8, .3 and cuts before every second uncertain token:
    # uncertain are tokens 2, 4, 5 and stretches begin at 2 and 5. Values after the tokens: .2 .3 .4 .6 1.
    chain = forest([-1, 0, 1, 2, 3, 4], {5: 1.0}, sure=[1, 1, 0.5, 0.95, 0.8, 0.3])
    credit = spo_chain(chain, np.array([0.1, 0.2, 0.3, 0.4, 0.6, 1.0]), every=2)
    # Tokens 2 to 4: 0.6 - 0.2; token 5: 1 - 0.6; token 1 is before the first cut.
    assert credit.advantage == pytest.approx([0, 0, 0.4, 0.4, 0.4, 0.4])
    assert credit.weight.tolist() == [0, 0, 1, 0, 1, 1]


def test_the_mean_of_a_fork_leaves_out_what_it_was_put_at() -> None:
    # At 1 a fork was put because of 2; 3 and 4 are fresh: (1 + 0) / 2, not (0 + 1 + 0) / 3.
    tree = forest([-1, 0, 1, 1, 1], {2: 0.0, 3: 1.0, 4: 0.0}, forced=(2,))
    assert tree.leaf_mean()[1] == pytest.approx(1 / 3)
    assert tree.leaf_mean(fresh=True)[1] == 0.5


def test_episodes_of_a_group_are_merged_where_they_did_the_same() -> None:
    actions, lengths = np.array([0, 1, 0, 2, 3]), np.array([2, 2, 1])
    tree, node = episode_tree(actions, lengths, np.array([7, 7, 7]), np.array([1.0, 0.0, 0.5]))
    assert node.tolist() == [1, 2, 1, 3, 4]
    assert tree.parent.tolist() == [-1, 0, 1, 1, 0]
    assert tree.times.tolist() == [3, 2, 1, 1, 1]
    # Without merging, the episodes' own advantages add up to the nodes': shared step 1 has the mean of 1 and 0.
    groups = np.zeros(3, np.int64)
    returns = np.array([1.0, 0.0, 0.5])
    for of_node, of_episode in ((rloo, group_leave_one_out), (grpo, group_normalised)):
        each = of_episode(returns, groups)
        assert of_node(tree).advantage[[1, 2, 3, 4]] == pytest.approx(
            [each[:2].mean(), each[0], each[1], each[2]], abs=1e-6
        )
    assert group_centred(returns, groups) == pytest.approx(tree.score[[2, 3, 4]] - 0.5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_is_a_switch_of_the_group_learner(name: str, tree_spec: str) -> None:
    agent = _agent(name, tree_spec)
    agent.learn(200)
    assert agent.num_timesteps >= 200


def _agent(name: str, tree_spec: str) -> DAPO:
    assert treegym.__version__  # imported, so that the id is known
    env = gym.make("TokenTree-v0", tree=tree_spec)
    return DAPO("ChildPolicy", env, advantage=name, n_episodes=32, n_envs=16, seed=0)


def test_what_an_estimator_cannot_be_used_on_is_refused() -> None:
    nothing = forest([-1, 0, 1], {})
    with pytest.raises(ConfigError, match="grpo needs sampled texts with returns"):
        estimator("grpo")(nothing)
    forked = forest([-1, 0, 1, 1], {2: 0.0, 3: 1.0}, forced=(2,))
    with pytest.raises(ConfigError, match="treerpo takes the children of a node for independent draws, and 1 of"):
        estimator("treerpo")(forked)
    estimator("treerl")(forked)
    with pytest.raises(ConfigError, match="Did you mean 'treerl'"):
        estimator("treerll")
    with pytest.raises(ConfigError, match="VinePPO needs a value of every segment"):
        vine(TREE, np.zeros(3))
    with pytest.raises(ConfigError, match="SPO-chain puts its cuts by the probabilities"):
        spo_chain(TREE, np.zeros(7))
    with pytest.raises(ConfigError, match="advantage must be one of"):
        _agent("trees", "synthetic:roots=4,depth=3,branching=3")
