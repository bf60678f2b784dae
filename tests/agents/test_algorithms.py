"""What sets the algorithms apart: sampling, pretraining, switches, and that each of them learns."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from treegym.agents import DAPO, GRPO, ORZPPO, PPO, RLOO, VAPO, AlphaZero, DrGRPO, ReinforcePlusPlus
from treegym.agents.callbacks import CheckpointCallback
from treegym.agents.play.episodes import begin
from treegym.agents.play.evaluation import play_roots
from treegym.agents.play.exploring import InnerStarts
from treegym.agents.policy_gradient import adapted_beta
from treegym.agents.vapo import explained_variance
from treegym.errors import ConfigError

LEARNERS = [PPO, DAPO, VAPO, GRPO, DrGRPO, RLOO, ReinforcePlusPlus, ORZPPO]


@pytest.mark.parametrize("kind", LEARNERS)
def test_every_learner_solves_a_trivial_environment(identity: Any, kind: Any) -> None:
    env = gym.vector.SyncVectorEnv([identity] * 8)
    agent = kind("ChildPolicy", env, seed=0, n_episodes=64, learning_rate=1e-2, batch_size=64)
    if "group_size" in agent.settings_dict():
        agent = kind("ChildPolicy", env, seed=0, n_episodes=64, learning_rate=1e-2, batch_size=64, group_size=8)
    agent.learn(4000, log_interval=0)
    mean, _ = evaluate_policy(agent, identity(), 40, warn=False)
    assert mean == 1.0


@pytest.mark.parametrize("kind", [PPO, DAPO, VAPO, AlphaZero])
def test_a_learner_nobody_holds_is_gone_at_once(kind: Any, tree_env: gym.Env, tmp_path: Path) -> None:
    """Weights, buffers and the optimizer's state would otherwise pile up over the runs of one process."""

    def learn() -> weakref.ref[Any]:
        agent = kind("ChildPolicy", tree_env, seed=0, n_episodes=8)
        agent.learn(16, callback=CheckpointCallback(tmp_path, every=10**6), log_interval=0)
        return weakref.ref(agent)

    learn()  # torch keeps the stack of the first optimizer's making, where it imports what it needs
    gc.collect()
    gc.disable()
    try:
        assert learn()() is None
    finally:
        gc.enable()


def test_dynamic_sampling_ends_and_its_cost_is_counted(identity: Any, capsys: pytest.CaptureFixture[str]) -> None:
    env = gym.vector.SyncVectorEnv([lambda: identity(solvable=False)] * 8)
    agent = DAPO(
        "ChildPolicy", env, seed=0, n_episodes=16, group_size=4, max_resamples=3, dynamic_sampling=True, verbose=1
    )
    before = [p.clone() for p in agent.policy.parameters()]
    agent.learn(1, log_interval=0)
    # 3 rounds of 16 episodes of 2 steps, every one thrown away, every one counted
    assert agent.num_timesteps == 3 * 16 * 2
    assert "nothing to learn from" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(before, agent.policy.parameters(), strict=True))


def test_kept_groups_hold_right_and_wrong_and_start_at_one_root(tree_env: gym.Env) -> None:
    agent = DAPO("ChildPolicy", tree_env, n_envs=64, n_episodes=32, group_size=8, dynamic_sampling=True, seed=0)
    seen: list[Any] = []
    update = agent.update
    agent.update = lambda rollout: (seen.append(rollout), update(rollout))[1]  # type: ignore[method-assign]
    agent.learn(1500, log_interval=0)
    kept = [rollout for rollout in seen if rollout.episodes]
    assert kept
    for rollout in kept:
        for group in np.unique(rollout.groups):
            here = rollout.groups == group
            assert here.sum() == 8
            assert 0 < rollout.correct[here].sum() < 8
            assert len(np.unique(rollout.roots[here])) == 1


def test_pretraining_the_critic_leaves_the_actor_bit_identical(tree_env: gym.Env) -> None:
    agent = VAPO("ChildPolicy", tree_env, n_envs=32, n_episodes=32, group_size=8, seed=0, pretrain_updates=20)
    actor = {id(p): p.clone() for p in agent.scorer.actor_parameters()}
    critic = [p.clone() for p in agent.scorer.critic_parameters()]
    while agent.pretrained >= 0:
        agent.learn(1, reset_num_timesteps=False, log_interval=0)
        assert all(torch.equal(actor[id(p)], p) for p in agent.scorer.actor_parameters())
    assert any(not torch.equal(a, b) for a, b in zip(critic, agent.scorer.critic_parameters(), strict=True))
    agent.learn(1, reset_num_timesteps=False, log_interval=0)
    assert any(not torch.equal(actor[id(p)], p) for p in agent.scorer.actor_parameters())


def test_overlong_punishment_and_filter(tree_env: gym.Env) -> None:
    agent = DAPO("ChildPolicy", tree_env, n_envs=8, seed=0, overlong_max=4, overlong_cache=2, overlong_filter=True)
    rollout = agent.sample_groups(agent.collector(_Silent()), 1, 0)
    rollout = rollout.with_(truncated=np.arange(rollout.episodes) % 2 == 0)
    punishment, filtered = agent.punishment(rollout), agent.filtered(rollout)
    expected = np.clip((2 - rollout.lengths) / 2, -1, 0)  # ((4 - 2) - |y|) / 2
    np.testing.assert_allclose(punishment, expected, atol=1e-6)
    np.testing.assert_array_equal(filtered.valid, np.repeat(~rollout.truncated, rollout.lengths))


def test_adaptive_kl_coefficient() -> None:
    # KL twice the target: clipped to +.2, times 100 / 1000 steps
    assert adapted_beta(0.5, 0.2, target=0.1, steps=100, horizon=1000) == pytest.approx(0.5 * 1.02)
    assert adapted_beta(0.5, 0.0, target=0.1, steps=100, horizon=1000) == pytest.approx(0.5 * 0.98)


def test_kl_in_the_reward_is_charged(tree_env: gym.Env) -> None:
    agent = PPO("ChildPolicy", tree_env, n_envs=8, n_episodes=8, seed=0, kl_coef=0.5)
    agent.learn(30, log_interval=0)  # away from the reference
    rollout = agent.collector(_Silent()).episodes(8)
    charged = agent._charge_kl(rollout)
    kl = rollout.log_probs - agent._reference_log_probs(rollout)
    np.testing.assert_allclose(rollout.rewards - charged.rewards, 0.5 * kl, atol=1e-6)
    assert np.abs(kl).max() > 0


def test_explained_variance() -> None:
    assert explained_variance(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 1.0
    assert explained_variance(np.array([1.5, 1.5]), np.array([1.0, 2.0])) == 0.0
    assert explained_variance(np.array([0.0, 1.0]), np.array([1.0, 1.0])) == 0.0


def test_every_component_is_a_switch() -> None:
    known = set(VAPO.settings_class.__dataclass_fields__)
    for name in ("value_pretraining", "decoupled", "length_adaptive", "clip_range_high", "aggregation", "nll_weight",
                 "group_sampling", "overlong_filter", "overlong_penalty"):  # fmt: skip
        assert name in known
    assert {"dynamic_sampling", "advantage"} <= set(DAPO.settings_class.__dataclass_fields__)


@pytest.mark.parametrize(
    ("kind", "switches", "sentence"),
    [
        (PPO, {"clip_rang": 0.1}, "Did you mean 'clip_range'"),
        (PPO, {"gamma": 1.5}, "gamma must be between 0 and 1"),
        (PPO, {"learning_rate": "fast"}, "is not a schedule"),
        (PPO, {"aggregation": "constant"}, "needs horizon"),
        (PPO, {"dual_clip": 0.5}, "dual_clip must be above 1"),
        (DAPO, {"group_size": 1}, "at least 2"),
        (DAPO, {"n_steps": 8}, "whole episodes"),
        (VAPO, {"alpha": 0.0}, "alpha must be above 0"),
        (AlphaZero, {"planner_sees": "everything"}, "planner_sees is .*must be one of"),
    ],
)
def test_bad_switches_get_one_sentence(identity: Any, kind: Any, switches: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        kind("ChildPolicy", identity(), **switches)
    assert "\n" not in str(caught.value)


def test_without_roots_the_episodes_of_a_group_begin_alike() -> None:
    agent = DAPO("MlpPolicy", gym.make("CartPole-v1"), seed=0, n_envs=8)
    rollout = agent.sample_groups(agent.collector(_Silent()), 3, 0)
    first = rollout.rows["observations"][rollout.starts]  # [12, 4] where each episode began
    np.testing.assert_array_equal(first, np.repeat(first[::4], 4, axis=0))
    assert len(np.unique(first, axis=0)) == 3


def test_lanes_that_start_by_themselves_cannot_make_groups() -> None:
    env = make_vec_env("CartPole-v1", 4)
    with pytest.raises(ConfigError, match="cannot start two episodes alike"):
        DAPO("MlpPolicy", env).learn(10)


def test_a_budget_is_overrun_by_less_than_a_rollout() -> None:
    """Two hundred and fifty-six episodes of CartPole take six thousand steps even when every one of them fails soon."""
    for kind in (PPO, DAPO, VAPO):
        agent = kind("MlpPolicy", gym.make("CartPole-v1"), seed=0, n_envs=4)
        agent.learn(3000, log_interval=0)
        assert 3000 <= agent.num_timesteps < 3000 + 4 * 4 * 500  # a round of groups at most, of 500 steps at most


def test_a_falling_rate_stays_on_its_line_when_the_last_rollout_runs_over(tree_env: gym.Env) -> None:
    agent = PPO("ChildPolicy", tree_env, seed=0, n_episodes=64, learning_rate="linear:0.003:0.0003")
    agent.learn(10, log_interval=0)
    assert agent.num_timesteps > 20
    # its only rollout began with all of the budget and ran past it: half is taken to be left
    assert agent.optimizer.param_groups[0]["lr"] == pytest.approx(0.00165)


def test_a_rollout_of_long_episodes_ends_early() -> None:
    agent = PPO("MlpPolicy", gym.make("CartPole-v1"), seed=0, n_envs=4, rollout_steps=40)
    rollout = agent.learn(1, log_interval=0).collector(_Silent()).episodes(256, enough=40)
    assert 40 <= rollout.steps < 40 + 4 * 500
    assert rollout.episodes < 256


@pytest.mark.parametrize("kind", [DAPO, VAPO, GRPO, RLOO])
def test_a_papers_preset_yields_to_what_is_said(kind: Any, tree_env: gym.Env) -> None:
    settings = kind.paper("ChildPolicy", tree_env, seed=0, learning_rate=0.1).settings_dict()
    assert settings["learning_rate"] == 0.1
    assert settings["exploring_starts"] == 0.0
    assert settings["batches"] == "episodes"
    assert settings["n_epochs"] == 1


@pytest.mark.parametrize("kind", [PPO, DrGRPO])  # Dr. GRPO is made of DAPO, whose paper is not its own
def test_without_a_paper_there_is_no_preset(tree_env: gym.Env, kind: Any) -> None:
    with pytest.raises(ConfigError, match="has no preset of a paper"):
        kind.paper("ChildPolicy", tree_env)


def test_minibatches_of_whole_episodes(tree_env: gym.Env) -> None:
    agent = PPO("ChildPolicy", tree_env, seed=0, n_envs=4, batches="episodes", batch_size=1)
    rollout = agent.collector(_Silent()).episodes(6)
    starts = {tuple(range(s, s + n)) for s, n in zip(rollout.starts.tolist(), rollout.lengths.tolist(), strict=True)}
    assert {tuple(index.tolist()) for index, _ in agent.minibatches(agent.lesson(rollout))} == starts


def test_exploring_starts_begin_at_inner_nodes_of_the_same_root(tree_env: gym.Env) -> None:
    env = gym.make_vec("TokenTree-v0", num_envs=8, tree="synthetic:roots=4,depth=6,seed=3")
    agent = DAPO("ChildPolicy", env, seed=0, exploring_starts=1.0)
    world = agent.world
    tables, tree = world.tree_world.tables, world.tree_world.tree
    begin(world, 8, np.repeat(world.roots()[:2], 4), 0)
    roots = tables.root_index[world.state()["node"]]
    InnerStarts(world).scatter(8, 1.0, np.random.default_rng(0), group_size=4)
    state = world.state()
    np.testing.assert_array_equal(tables.root_index[state["node"]], roots)
    np.testing.assert_array_equal(state["node"], np.repeat(state["node"][::4], 4))  # groups stay together
    np.testing.assert_array_equal(state["steps"], tree.depth[state["node"]])
    assert (tables.child_count[state["node"]] > 0).all()
    assert (state["steps"] > 0).any()


def test_what_suits_a_policy_comes_before_defaults_and_after_what_is_said(tree_env: gym.Env) -> None:
    assert PPO("ChildPolicy", tree_env, ent_coef=0.5).settings_dict()["ent_coef"] == 0.5
    assert PPO("ChildPolicy", tree_env).settings_dict()["n_epochs"] == 8
    assert PPO("MultiInputPolicy", tree_env).settings_dict()["n_epochs"] == 4


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be Discrete"):
        PPO("MlpPolicy", "Pendulum-v1")


def test_environments_without_masks_run_unmasked() -> None:
    agent = PPO("MlpPolicy", "CartPole-v1", seed=0, n_envs=2, n_steps=16).learn(64, log_interval=0)
    action, _ = agent.predict(np.zeros(4, np.float32), deterministic=True)
    assert action in (0, 1)


def test_time_limits_bootstrap_terminals_do_not() -> None:
    agent = PPO("MlpPolicy", gym.make("CartPole-v1", max_episode_steps=5), seed=0, n_steps=12)
    rollout = agent.collector(_Silent()).pieces(12)
    np.testing.assert_array_equal(rollout.lengths, [5, 5, 2])
    np.testing.assert_array_equal(rollout.truncated, [True, True, False])
    assert (rollout.bootstrap != 0).all()  # two time limits, and the cut at the edge of the piece
    agent = PPO("MlpPolicy", gym.make("CartPole-v1"), seed=0, n_episodes=4)
    whole = agent.collector(_Silent()).episodes(4)
    assert whole.terminated.all()
    assert not whole.bootstrap.any()
    pieces = PPO("MlpPolicy", gym.make("CartPole-v1"), seed=0, n_steps=100).collector(_Silent()).pieces(100)
    assert pieces.terminated[:-1].all()
    assert not pieces.bootstrap[:-1].any()
    assert pieces.bootstrap[-1] != 0  # cut at the edge


def test_learners_beat_chance_on_a_tree(tree_spec: str) -> None:
    env = gym.make("TokenTree-v0", tree=tree_spec)
    agent = PPO("ChildPolicy", env, n_envs=64, n_episodes=128, seed=0, learning_rate=3e-3)
    assert agent.world is not None
    before = np.nanmean(play_roots(agent, agent.world).success)
    agent.learn(8000, log_interval=0)
    assert np.nanmean(play_roots(agent, agent.world).success) > before + 0.3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_cartpole_is_solved_in_50k_steps(seed: int, tmp_path: Path) -> None:
    """RL Zoo's settings and its way: the best checkpoint of the run, by episodes that the verdict here does not use."""

    def score(model: Any, first: int = 2000) -> float:
        env = gym.make("CartPole-v1")
        env.reset(seed=first + seed)
        return float(evaluate_policy(model, env, 20, warn=False)[0])

    zoo = {"n_envs": 8, "n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8}
    agent = PPO("MlpPolicy", "CartPole-v1", seed=seed, learning_rate="lin_0.001", clip_range="lin_0.2", **zoo)
    agent.learn(50_000, callback=CheckpointCallback(tmp_path, every=5_000, validate=score), log_interval=0)
    best = PPO.load(tmp_path / "best.zip")
    assert best.num_timesteps <= 50_000 + 256
    assert score(best, first=1000) == 500.0


class _Silent:
    """A callback that never stops anything."""

    def update_locals(self, values: dict[str, Any]) -> None:
        return None

    def on_step(self) -> bool:
        return True
