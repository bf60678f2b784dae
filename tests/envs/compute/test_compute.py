"""TestTimeCompute: hand-worked episodes, replay without replacement, forks, the contract of environments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treegym
from treegym.envs.compute import transition
from treegym.envs.compute.env import TestTimeComputeEnv, TestTimeComputeVectorEnv
from treegym.envs.compute.observation import confidences
from treegym.envs.compute.pool import ChainPool, pool_of_tree, synthetic_pool
from treegym.envs.compute.transition import CHAIN, SHOWN, STATUS, block
from treegym.envs.compute.world import ComputeWorld
from treegym.errors import ConfigError
from treegym.tree.samples import drawn
from treegym.tree.token_tree import TokenTree

SYNTHETIC = "synthetic:prompts=40,chains=12,segments=4,segment=5,seed=1"


def test_a_hand_worked_episode(hand_env: Callable[..., TestTimeComputeEnv]) -> None:
    # A chain has (4 + 3 + 1) / 3 = 8 / 3 tokens, so a token costs 0.8 / (8 / 3) = 0.3.
    env = hand_env()
    for seed in range(50):  # until the first branch is chain 0
        env.reset(seed=seed)
        _, reward, *_ = env.step(0)
        if env.lanes.place[0][transition.FIXED] == 0:
            break
    assert reward == pytest.approx(-0.6)  # its first segment, two tokens
    _, reward, _, _, info = env.step(env.world.action_of("probe", 0))
    assert reward == pytest.approx(-0.3)  # one token
    assert block(env.lanes.place[0], SHOWN, 3)[0] == 1
    assert not info["action_mask"][env.world.action_of("probe", 0)]  # it was asked here already
    # A fork shares the first segment; of the chains that do only chain 1 is left. It says its last token: 0.3.
    _, reward, _, _, info = env.step(env.world.action_of("fork", 0))
    assert reward == pytest.approx(-0.3)
    assert block(env.lanes.place[0], CHAIN, 3)[:2].tolist() == [0, 1]
    assert block(env.lanes.place[0], STATUS, 3)[:2].tolist() == [transition.ACTIVE, transition.FINISHED]
    assert not info["action_mask"][env.world.action_of("fork", 0)]
    _, reward, *_ = env.step(env.world.action_of("continue", 0))
    assert reward == pytest.approx(-0.6)
    # Answers 0 and 1 are level; the branch that was opened first decides.
    _, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)
    assert info["reward_terms"]["correct"]["raw"] == 1.0


@pytest.mark.parametrize(
    ("rule", "right"),
    # Answer 1 has two votes of three; the scores are 0.9 against 0.2 + 0.3, and the best is 0.9.
    [("plurality", False), ("weighted", True), ("best", True)],
)
def test_the_three_aggregates(rule: str, right: bool, hand_env: Callable[..., TestTimeComputeEnv]) -> None:
    env = hand_env(aggregate=rule)
    env.reset(seed=0)
    for _ in range(3):
        env.step(0)
    for i in range(3):
        env.step(env.world.action_of("continue", i))
    assert env.step(1)[4]["is_success"] is right


def test_nothing_said_is_no_answer_and_pruned_branches_do_not_vote(hand_env: Callable[..., TestTimeComputeEnv]) -> None:
    env = hand_env()
    env.reset(seed=0)
    assert env.step(1)[1:3] == (0.0, True)
    env.reset(seed=0)
    env.step(0)
    env.step(env.world.action_of("probe", 0))
    assert int(transition.aggregate(env.lanes.place[0], env.world.cells)) in (0, 1)
    if block(env.lanes.place[0], STATUS, 3)[0] == transition.ACTIVE:
        env.step(env.world.action_of("prune", 0))
        assert int(transition.aggregate(env.lanes.place[0], env.world.cells)) == -1


def test_a_budget_is_hard(hand_env: Callable[..., TestTimeComputeEnv]) -> None:
    # 1.2 chains of 8 / 3 tokens are 3 tokens: after a segment of 2 no further segment of 2 is covered.
    env = hand_env(budget=1.2)
    for seed in range(50):
        env.reset(seed=seed)
        _, _, _, _, info = env.step(0)
        if env.lanes.place[0][transition.SPENT] == 2:
            break
    allowed = [env.world.action_name(a) for a in np.flatnonzero(info["action_mask"])]
    assert allowed == ["answer", "probe 0", "prune 0"]
    _, reward, _, _, info = env.step(0)
    assert (reward, info["illegal_action"]) == (-0.1, True)


def test_confidence_by_hand() -> None:
    # Four unanimous votes: Beta(5, 1) is above one half with 1 - 1/32; three: 1 - 1/16, which is below 0.95.
    table = confidences(8)
    assert table[4, 0] == pytest.approx(31 / 32)
    assert table[3, 0] == pytest.approx(15 / 16)
    assert table[2, 2] == pytest.approx(0.5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_replay_is_without_replacement(seed: int) -> None:
    env = TestTimeComputeVectorEnv(16, pool=SYNTHETIC, max_branches=12, split="all")
    env.reset(seed=seed)
    for _ in range(12):
        env.step(np.zeros(16, np.int64))
    chains = block(env.lanes.place, CHAIN, 12)
    assert all(len(set(row)) == 12 for row in chains.tolist())
    # The pool holds twelve chains per prompt: all of them were drawn.
    assert (np.sort(chains, 1) == env.lanes.root[:, None] * 12 + np.arange(12)).all()


def test_draws_are_uniform(hand_pool: Callable[..., ChainPool]) -> None:
    world = ComputeWorld(pool=hand_pool(), max_branches=2)
    lanes = world.lanes(6000)
    lanes.seed(np.random.default_rng(0).integers(2**63, size=6000).astype(np.uint64))
    lanes.begin()
    for _ in range(2):
        lanes.advance(np.zeros(6000, np.int64), next_step_reset=False)
    pairs = block(lanes.place, CHAIN, 2)
    seen = np.bincount(pairs[:, 0] * 3 + pairs[:, 1], minlength=9) / 6000
    # Six ordered pairs of different chains, each with 1/6; a standard deviation is 0.0048.
    assert seen[[0, 4, 8]].tolist() == [0, 0, 0]
    assert seen[[1, 2, 3, 5, 6, 7]] == pytest.approx([1 / 6] * 6, abs=0.02)


def test_pool_of_a_tree_by_hand(hand_made: TokenTree) -> None:
    # "ab<end>" (3 tokens), "b<end>" (2) and "cab<end>" (4), in segments of two tokens.
    hand_made.prior[[4, 5, 6, 7, 8, 9]] = 0.0
    table = np.ones(10)
    table[[1, 2, 3]] = 0.5, 0.25, 0.25
    tree = drawn(hand_made, table, samples=40, seed=0)
    pool = pool_of_tree(tree, segment=2)
    assert sorted(set(pool.length.tolist())) == [2, 3, 4]
    assert pool.num_segments == 2
    assert pool.correct.tolist() == (pool.length != 3).tolist()
    of_a = pool.length == 3
    first, last = np.flatnonzero(of_a)[[0, -1]]
    assert (pool.low[of_a, 1] == first).all()
    assert (pool.high[of_a, 1] == last + 1).all()
    assert (pool.low[:, 0] == 0).all()
    assert (pool.high[:, 0] == 40).all()
    assert (pool.probe[:, 0] == pool.answer).all()  # below its first token each text is certain


def test_bundled_pool_draws_from_the_primary() -> None:
    world = ComputeWorld(samples=32)
    pool = world.chains
    assert pool.num_prompts == 900
    tree = treegym.tree.opening.load_tree(None)
    exact = tree.values("primary").value[tree.root_node].mean()
    assert pool.correct.mean() == pytest.approx(exact, abs=0.02)  # a standard deviation is below 0.003
    assert pool.features.shape[1] == 24


@pytest.mark.parametrize("pool", [SYNTHETIC, "tree:synthetic:roots=20,depth=6,branching=4"])
def test_contract(pool: str) -> None:
    treegym.check_suite("TestTimeCompute-v0", pool=pool)


def test_made_by_id() -> None:
    env = gym.make("TestTimeCompute-v0", pool=SYNTHETIC, render_mode="ansi")
    env.reset(seed=0)
    env.step(0)
    assert "would answer" in env.render()
    many = gym.make_vec("MO-TestTimeCompute-v0", num_envs=3, pool=SYNTHETIC)
    many.reset(seed=0)
    assert many.step(np.zeros(3, np.int64))[1].shape == (3, 2)


def test_bad_settings_are_refused(
    tmp_path: Path, hand_pool: Callable[..., ChainPool], hand_env: Callable[..., TestTimeComputeEnv]
) -> None:
    with pytest.raises(ConfigError, match="below one sample: the shortest chain of this pool has 1 tokens"):
        hand_env(budget=0.1)
    with pytest.raises(ConfigError, match="unknown setting 'chain'"):
        ComputeWorld(pool="synthetic:chain=3")
    with pytest.raises(ConfigError, match="aggregate is 'mean'"):
        hand_env(aggregate="mean")
    with pytest.raises(ConfigError, match="no prompt in split 'test'"):
        hand_env(split="test")
    with pytest.raises(ConfigError, match="prompt 0 has no chain"):
        hand_pool(start=np.array([0, 0]))
    assert synthetic_pool(prompts=3, chains=2).num_prompts == 3
