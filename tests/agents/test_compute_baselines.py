"""Controllers of test-time compute against what is known exactly of them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.agents.baselines.compute import (
    AdaptiveConsistency,
    EarlyStoppingConsistency,
    ParallelProbe,
    ScoreThreshold,
    SelfConsistency,
)
from treegym.agents.registry import make_agent
from treegym.envs.compute import transition
from treegym.envs.compute.env import TestTimeComputeEnv
from treegym.envs.compute.estimates import adaptive_consistency, consensus_at_k, stopped
from treegym.envs.compute.pool import synthetic_pool
from treegym.envs.compute.transition import ANSWER, FINISHED
from treegym.envs.compute.world import ComputeWorld
from treegym.errors import ConfigError

POOL = "synthetic:prompts=30,chains=16,segments=3,segment=4,seed=5"


def played(agent: object, env: Any, *, steps: int) -> tuple[float, float, int]:
    """Returns accuracy, tokens and number of the episodes that are over after so many steps."""
    seen, _ = env.reset(seed=1)
    state, right, tokens, episodes = None, 0.0, 0.0, 0
    for _ in range(steps):
        action, state = agent.predict(seen, state=state)  # type: ignore[attr-defined]
        seen, _, over, cut, info = env.step(action)
        spent = env.unwrapped.lanes.place[:, transition.SPENT]  # of a lane that is over until it begins anew
        assert not info["illegal_action"].any()
        right += info["is_success"].sum()
        tokens += spent[over | cut].sum()
        episodes += int((over | cut).sum())
    return right / episodes, tokens / episodes, episodes


def exact(rule: object, *, limit: int) -> tuple[float, float]:
    pool = synthetic_pool(prompts=30, chains=16, segments=3, segment=4, seed=5)
    found = []
    for q in pool.roots_in("all"):
        here = pool.chains(int(q))
        sums = np.bincount(pool.answer[here], pool.length[here], minlength=pool.right.shape[1])
        counts = pool.answer_counts(int(q))
        found.append(stopped(counts, pool.right[q], rule, limit=limit, lengths=sums / np.maximum(counts, 1)))  # type: ignore[arg-type]
    return float(np.mean([f.accuracy for f in found])), float(np.mean([f.tokens for f in found]))


@pytest.mark.parametrize(
    ("agent", "rule", "switches"),
    [
        (SelfConsistency, lambda seen, _: None, {"samples": 3}),
        (AdaptiveConsistency, adaptive_consistency(0.8), {"threshold": 0.8, "samples": 5}),
    ],
)
def test_what_they_reach_is_what_the_exact_estimate_says(agent: type, rule: object, switches: dict[str, float]) -> None:
    env = gym.make_vec("TestTimeCompute-v0", num_envs=300, pool=POOL, split="all", max_branches=5)
    accuracy, tokens, episodes = played(agent(env, **switches), env, steps=150)
    expected = exact(rule, limit=int(switches["samples"]))
    # Some thousand episodes: a standard deviation of the accuracy is below 0.01.
    assert episodes > 2000
    assert accuracy == pytest.approx(expected[0], abs=0.04)
    assert tokens == pytest.approx(expected[1], rel=0.05)


def test_self_consistency_of_all_chains_is_the_plurality() -> None:
    pool = synthetic_pool(prompts=4, chains=3, seed=1)
    env = TestTimeComputeEnv(world=ComputeWorld(pool=pool, max_branches=3, split="all"))
    agent = SelfConsistency(env)
    for q in range(4):
        chance = consensus_at_k(pool.answer_counts(q), pool.right[q], 3)
        if chance not in (0.0, 1.0):
            continue  # equals: the order decides
        seen, _ = env.reset(seed=q, options={"root": q})
        over = False
        while not over:
            seen, _, over, _, info = env.step(agent.predict(seen)[0])
        assert info["is_success"] == (chance == 1.0)


def test_a_window_that_agrees_ends_early_stopping() -> None:
    env = TestTimeComputeEnv(pool="synthetic:prompts=2,chains=8,difficulty=0,answers=2,seed=0", max_branches=6)
    agent = EarlyStoppingConsistency(env, window=2)
    seen, _ = env.reset(seed=0)
    over = False
    while not over:
        action, _ = agent.predict(seen)
        labels = agent.look({key: value[None] for key, value in seen.items()}).label[0]
        opened = int(env.lanes.place[0, transition.COUNT])
        if action == ANSWER:
            assert opened == 6 or (opened % 2 == 0 and labels[opened - 1] == labels[opened - 2])
        seen, _, over, _, _ = env.step(action)


def test_a_good_score_ends_sampling() -> None:
    env = TestTimeComputeEnv(pool=POOL, max_branches=5, aggregate="best", split="all")
    agent = ScoreThreshold(env, threshold=0.6)
    for seed in range(10):
        seen, _ = env.reset(seed=seed)
        over = False
        while not over:
            place = env.lanes.place[0]
            chains, status = (transition.block(place, which, 5) for which in (transition.CHAIN, transition.STATUS))
            done = [env.world.chains.score[c] for c, s in zip(chains, status, strict=True) if s == FINISHED]
            action, _ = agent.predict(seen)
            if action == ANSWER:
                assert len(done) == 5 or max(done) >= 0.6
            else:
                assert not done or max(done) < 0.6 or place[transition.COUNT] > len(done)
            seen, _, over, _, _ = env.step(action)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_parallel_probe_plays_whole_episodes(stop_after: int) -> None:
    pool = "synthetic:prompts=40,segments=8,seed=2"
    env = gym.make_vec("TestTimeCompute-v0", num_envs=64, pool=pool, max_branches=4, split="all")
    few, spent, episodes = played(ParallelProbe(env, stop_after=stop_after, warm_up=1), env, steps=300)
    assert episodes > 100
    assert 0.3 < few <= 1.0
    assert spent > 0


def test_controllers_are_found_by_name_and_need_their_world() -> None:
    for name in ("self_consistency", "adaptive_consistency", "early_stopping", "parallel_probe"):
        assert make_agent(name, TestTimeComputeEnv(pool=POOL)).learns is False
    with pytest.raises(ConfigError, match=r"make it in TestTimeCompute-v0"):
        SelfConsistency("TokenTree-v0")


def test_states_from_elsewhere_are_refused() -> None:
    env = TestTimeComputeEnv(pool=POOL)
    env.reset(seed=0)
    env.step(0)
    state = env.clone_state()
    env.step(0)
    env.restore_state(state)
    state["place"][0, 4] = 10**6
    with pytest.raises(ConfigError, match="at a place that is not there"):
        env.restore_state(state)
