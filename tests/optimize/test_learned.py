"""The learned selection: the suite's agents, trained on recorded modules, choose on a live one."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import treegym  # noqa: F401 (registers the ids)
from treegym.errors import ConfigError
from treegym.optimization import (
    HybridRLOptimizer,
    OptimizationEnvironment,
    PolicyNetwork,
    ValueNetwork,
    create_hybrid_optimization_core,
)

LITTLE = {"rl_max_episodes": 1, "rl_max_steps_per_episode": 2, "rl_hidden_dim": 16}


def test_switches_choose_the_agents() -> None:
    assert HybridRLOptimizer().algorithms() == ["DAPO", "VAPO"]
    assert HybridRLOptimizer({"enable_dapo": False}).algorithms() == ["VAPO"]
    assert HybridRLOptimizer({"enable_dapo": False, "enable_vapo": False}).algorithms() == ["PPO"]


def test_the_better_agent_drives() -> None:
    optimizer = HybridRLOptimizer(LITTLE).learn()
    assert set(optimizer.agents) == {"DAPO", "VAPO"}
    assert all(agent.num_timesteps >= 128 for agent in optimizer.agents.values())
    best = max(optimizer.validation, key=lambda name: optimizer.validation[name])
    assert optimizer.agent is optimizer.agents[best]
    assert isinstance(optimizer.agent.policy, PolicyNetwork)
    settings = optimizer.agents["DAPO"].settings
    assert (settings.clip_range, settings.clip_range_high, settings.gamma) == (0.1, 0.3, 0.99)


@pytest.mark.parametrize("switches", [{"enable_dapo": False}, {"enable_dapo": False, "enable_vapo": False}])
def test_the_critic_learns_at_its_own_rate(switches: dict[str, bool]) -> None:
    def moved(rate: float) -> tuple[float, float]:
        optimizer = HybridRLOptimizer({**LITTLE, **switches, "enable_orz": False, "rl_value_learning_rate": rate})
        agent = optimizer.learn(600).agent
        start = type(agent)("ChildPolicy", agent.env, seed=0, device="cpu", policy_kwargs=agent.policy_kwargs)
        far = {"critic": 0.0, "actor": 0.0}
        for (name, after), before in zip(agent.policy.named_parameters(), start.policy.parameters(), strict=True):
            far["critic" if name.startswith("critic_") else "actor"] += float((after - before).detach().norm())
        return far["critic"], far["actor"]

    slow, fast = moved(1e-5), moved(1e-3)
    assert fast[0] > 10 * slow[0]
    assert slow[1] == pytest.approx(fast[1], rel=0.5)


def test_rl_selection_on_a_live_module() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    core = create_hybrid_optimization_core(
        {
            **LITTLE, "selection_strategy": "rl", "enable_vapo": False, "max_iterations": 2, "num_candidates": 3,
            "seconds_per_candidate": 0.1, "enable_adaptive_hybrid": False,
            "optimization_strategies": ["inplace", "bf16", "bf16_linear"],
        }
    )  # fmt: skip
    _, result = core.hybrid_optimize_module(module, torch.randn(16, 64))
    assert 1 <= result["evaluations"] <= 2


def test_rl_selection_must_be_allowed() -> None:
    with pytest.raises(ConfigError, match="enable_rl_optimization"):
        create_hybrid_optimization_core({"selection_strategy": "rl", "enable_rl_optimization": False})


def test_agents_take_the_batch_and_its_roots() -> None:
    from treegym.agents import DAPO

    env = gym.make_vec("CandidateSelection-v0", num_envs=8, autoreset_mode="Disabled")
    agent = DAPO("ChildPolicy", env, seed=0, device="cpu", n_episodes=32, group_size=8)
    agent.learn(64)
    single = OptimizationEnvironment(split="test")
    seen, info = single.reset(seed=3)
    action, _ = agent.predict(seen, deterministic=True)
    assert info["action_mask"][int(action)] == 1


def test_live_pipeline_measures_what_is_built() -> None:
    settings = {"model": "zoo:mlp/0", "strategies": ["inplace", "bf16"], "seconds": 0.1}
    env = gym.make("OptimizationPipeline-v0", source="measured", **settings)
    assert env.spec is not None
    assert env.spec.nondeterministic
    env.reset(seed=0)
    world = env.unwrapped.world  # type: ignore[attr-defined]
    names = world.action_names(env.unwrapped.lanes.place[0])  # type: ignore[attr-defined]
    assert {name for name in names if name} == {"inplace", "bf16", "stop"}
    total = 0.0
    for measured, name in enumerate(("bf16", "inplace"), start=1):
        seen, reward, *_ = env.step(names.index(name))
        total += reward
        assert world.known.sum() == measured
        assert env.observation_space.contains(seen)
    record = int(np.flatnonzero(world.known)[-1])
    assert world.table.name(record) == "inplace+bf16"
    assert total == pytest.approx(float(world.fitness[record]) - world.base_fitness - 2 * world.cost)
    env.reset(seed=1)
    assert env.step(names.index("bf16"))[1] == pytest.approx(
        float(world.fitness[int(np.flatnonzero(world.known)[0])]) - world.base_fitness - world.cost
    )  # remembered
    with pytest.raises(ConfigError, match="needs model"):
        gym.make("OptimizationPipeline-v0", source="measured")
    with pytest.raises(ConfigError, match="goes with source"):
        gym.make("OptimizationPipeline-v0", model="zoo:mlp/0")


def test_live_environment_measures_when_first_chosen() -> None:
    env = gym.make(
        "CandidateSelection-v0", source="measured", model="zoo:mlp/0", strategies=["inplace", "bf16"], seconds=0.1,
        num_candidates=2,
    )  # fmt: skip
    assert env.spec is not None
    assert env.spec.nondeterministic
    env.reset(seed=0)
    world = env.unwrapped.world  # type: ignore[attr-defined]
    assert not world.known.any()
    _, reward, terminated, _, _ = env.step(0)
    assert (reward, terminated) == (-world.cost, False)
    record = int(world.candidates[world.root, 0])
    assert world.known[record]
    _, reward, terminated, _, info = env.step(0)
    assert terminated
    assert reward == pytest.approx(float(world.fitness[record]) - world.base_fitness)
    assert np.isfinite(info["vector_reward"]).all()


def test_policy_and_value_network_are_two_things() -> None:
    agent = HybridRLOptimizer({**LITTLE, "enable_dapo": False}).learn(128).agent
    policy, value = agent.policy, ValueNetwork(agent.policy)
    seen = {
        name: torch.as_tensor(rows)[None]
        for name, rows in OptimizationEnvironment(num_candidates=24).reset()[0].items()
    }
    assert policy(seen).shape == (1, 25)
    assert torch.equal(value(seen), policy.values(seen))
    assert {id(p) for p in value.parameters()} == {id(p) for p in policy.critic_parameters()}
    assert sum(p.numel() for p in value.parameters()) < sum(p.numel() for p in policy.parameters())
