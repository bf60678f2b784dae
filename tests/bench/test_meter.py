from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from treegym.agents import AlphaZero
from treegym.agents.planning.planners import ClosedPlanner
from treegym.agents.policies.base import ChildScorer
from treegym.bench.meter import Meter, follow
from treegym.errors import ConfigError


class Policy(ChildScorer):
    """A policy without weights, counted in all of its methods as any other."""

    def logits(self, obs: Any) -> torch.Tensor:
        return torch.zeros(len(_first(obs)), 2)

    def values(self, obs: Any) -> torch.Tensor:
        return torch.zeros(len(_first(obs)))

    def tensors(self, rows: Any) -> Any:
        return {key: torch.as_tensor(array) for key, array in rows.items()}


def _first(obs: Any) -> Any:
    return next(iter(obs.values())) if isinstance(obs, dict) else obs


TREE = "synthetic:roots=20,depth=4,branching=3,seed=0"
ROWS = {"observations": np.zeros((5, 3)), "action_mask": np.ones((5, 2))}


def _meter(budget: dict[str, float], checkpoints: int = 4) -> tuple[Meter, list[int]]:
    seen: list[int] = []
    return Meter(budget, checkpoints, seen.append), seen


def test_a_call_within_a_call_is_one_pass() -> None:
    meter, _ = _meter({"env_steps": 10})
    policy = Policy()
    policy.costs = meter
    policy.infer(ROWS)
    assert meter.forward_passes == 5
    policy.evaluate(policy.tensors(ROWS), torch.zeros(5, dtype=torch.long))
    assert meter.forward_passes == 10
    policy.logits(ROWS["observations"])
    assert meter.forward_passes == 15


def test_what_cannot_be_counted_is_said_when_it_is_the_budget() -> None:
    meter, _ = _meter({"forward_passes": 10})
    assert not follow(object(), meter)
    meter.forward_passes = None
    with pytest.raises(ConfigError, match="does not say how many it makes"):
        meter.tick()


def test_every_simulation_is_charged_once() -> None:
    meter, _ = _meter({"forward_passes": 1000})
    agent = AlphaZero("ChildPolicy", gym.make("TokenTree-v0", tree=TREE), n_envs=4, seed=0)
    assert follow(agent, meter)
    searcher = agent.planner("value")
    assert isinstance(searcher, ClosedPlanner)
    searcher.prepare(agent.scorer)  # judging states ahead saves time, and is not charged beside the simulations
    assert meter.forward_passes == 0
    roots = searcher.world.tree.root_node[:3].astype(np.int64)
    searcher.search(roots, method="puct", num_simulations=8, seed=0)
    assert meter.forward_passes == 24
    assert agent.planner("value") is searcher
    agent.planner("value").search(roots[:1], method="puct", num_simulations=8, seed=0)
    assert meter.forward_passes == 32  # asked for twice, counted once
    assert meter.simulations == 32
    session = searcher.session(roots[:1], method="puct", num_simulations=8, seed=0)
    searcher.run(session)
    assert meter.forward_passes == meter.simulations == 40


def test_checkpoints_come_once_each_and_in_order() -> None:
    meter, seen = _meter({"env_steps": 100})
    for steps in (10, 25, 30, 80, 99):
        meter.env_steps = steps
        assert meter.tick()
    assert seen == [1, 2, 3]  # 25, then 50 and 75 together at 80; the last one is taken after learning
    meter.env_steps = 100
    assert not meter.tick()
    assert seen == [1, 2, 3]


def test_the_first_unit_to_run_out_ends_a_run() -> None:
    meter, _ = _meter({"env_steps": 100, "forward_passes": 50})
    meter.env_steps, meter.forward_passes = 10, 49
    assert meter.tick()
    meter.forward_passes = 50
    assert not meter.tick()


def test_evaluation_is_charged_to_nobody() -> None:
    policy = Policy()

    def evaluate(number: int) -> None:
        policy.infer(ROWS)
        sum(i * i for i in range(300_000))

    meter = Meter({"env_steps": 10}, 2, evaluate)
    policy.costs = meter
    meter.start()
    before = meter.cpu_seconds
    meter.checkpoint(0)
    assert meter.forward_passes == 0
    assert meter.evaluation_passes == 5
    assert meter.evaluation_cpu > 0
    assert meter.cpu_seconds - before < meter.evaluation_cpu


def test_networks_inside_a_policy_are_counted() -> None:
    from stable_baselines3 import DQN

    agent = DQN("MlpPolicy", gym.make("CartPole-v1"), device="cpu")
    meter, _ = _meter({"forward_passes": 100})
    assert follow(agent, meter)
    agent.q_net(torch.zeros(7, 4))
    agent.q_net_target(torch.zeros(3, 4))
    assert meter.forward_passes == 10
    agent.predict(np.zeros((5, 4), np.float32), deterministic=True)
    assert meter.forward_passes == 15
