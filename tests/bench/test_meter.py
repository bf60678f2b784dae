from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.bench.meter import Meter, count_forward_passes, count_simulations
from treegym.errors import ConfigError


class Policy:
    """Judges states in methods that call each other, as ours do."""

    def both(self, obs: Any) -> Any:
        return self.logits(obs), obs

    def logits(self, obs: Any) -> Any:
        return obs

    def infer(self, rows: Any, *, with_value: bool = True) -> Any:
        return self.both(rows)

    def evaluate(self, obs: Any, actions: Any) -> Any:
        return self.both(obs)


class Searcher:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def prepare(self, policy: Any) -> None:
        self.policy.infer(ROWS)

    def search(self, states: Any, *, method: str, num_simulations: int, seed: int) -> str:
        self.policy.infer(ROWS)
        return method


class Planner:
    def __init__(self, policy: Policy) -> None:
        self._searcher = Searcher(policy)

    def planner(self, sees: str) -> Searcher:
        return self._searcher


ROWS = {"observations": np.zeros((5, 3)), "action_mask": np.zeros((5, 2))}


def _meter(budget: dict[str, float], checkpoints: int = 4) -> tuple[Meter, list[int]]:
    seen: list[int] = []
    return Meter(budget, checkpoints, seen.append), seen


def test_a_call_within_a_call_is_one_pass() -> None:
    meter, _ = _meter({"env_steps": 10})
    policy = Policy()
    assert count_forward_passes(policy, meter)
    policy.infer(ROWS)
    assert meter.forward_passes == 5
    policy.evaluate(ROWS, None)
    assert meter.forward_passes == 10
    policy.logits(ROWS["observations"])
    assert meter.forward_passes == 15


def test_what_cannot_be_counted_is_said_when_it_is_the_budget() -> None:
    meter, _ = _meter({"forward_passes": 10})
    assert not count_forward_passes(None, meter)
    meter.forward_passes = None
    with pytest.raises(ConfigError, match="does not say how many it makes"):
        meter.tick()


def test_every_simulation_is_charged_once() -> None:
    meter, _ = _meter({"forward_passes": 1000})
    policy = Policy()
    agent = Planner(policy)
    count_forward_passes(policy, meter)
    count_simulations(agent, meter)
    searcher = agent.planner("value")
    searcher.prepare(None)  # judging states ahead saves time, and is not charged beside the simulations
    assert meter.forward_passes == 0
    assert searcher.search([0, 1, 2], method="puct", num_simulations=8, seed=0) == "puct"
    assert meter.forward_passes == 24
    assert agent.planner("value") is searcher
    agent.planner("value").search([0], method="puct", num_simulations=8, seed=0)
    assert meter.forward_passes == 32  # asked for twice, counted once
    assert meter.simulations == 32


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
    count_forward_passes(policy, meter)
    meter.start()
    before = meter.cpu_seconds
    meter.checkpoint(0)
    assert meter.forward_passes == 0
    assert meter.evaluation_passes == 5
    assert meter.evaluation_cpu > 0
    assert meter.cpu_seconds - before < meter.evaluation_cpu


def test_networks_inside_a_policy_are_counted() -> None:
    import gymnasium as gym
    import torch
    from stable_baselines3 import DQN

    agent = DQN("MlpPolicy", gym.make("CartPole-v1"), device="cpu")
    meter, _ = _meter({"forward_passes": 100})
    assert count_forward_passes(agent.policy, meter)
    agent.q_net(torch.zeros(7, 4))
    agent.q_net_target(torch.zeros(3, 4))
    assert meter.forward_passes == 10
    agent.predict(np.zeros((5, 4), np.float32), deterministic=True)
    assert meter.forward_passes == 15
