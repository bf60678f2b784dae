"""AlphaZero: targets, what its planner may see, and where it falls back."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.agents import AlphaZero, ExpertIteration
from treegym.agents.alphazero import n_step_returns
from treegym.agents.evaluation import play_roots, vector_world
from treegym.agents.planning import ClosedPlanner, TreeSimulator, visible_reward
from treegym.agents.replay import Replay
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError

SMALL = {"n_envs": 32, "n_episodes": 32, "num_simulations": 32, "seed": 0}


def test_n_step_returns_by_hand() -> None:
    # two episodes, n = 2, gamma .5: r0 + .5 r1 + .25 v2; r1 + .5 r2 (ends); r2; and an episode of one step
    rewards, values = np.array([1.0, 2.0, 4.0, 8.0]), np.array([9.0, 9.0, 16.0, 9.0])
    found = n_step_returns(rewards, values, np.array([3, 1]), n=2, gamma=0.5)
    np.testing.assert_allclose(found, [1 + 1 + 4, 2 + 2, 4, 8])


def test_the_planner_does_not_see_the_verdict(tree_spec: str) -> None:
    """Turning every verdict round changes nothing of what a planner with ``sees="value"`` is told or does."""
    agent = AlphaZero("ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), **SMALL)
    agent.learn(200, log_interval=0)
    told = []
    for turned in (False, True):
        world = TreeWorld(tree_spec, split="all")
        if turned:
            tree = copy.copy(world.tree)
            world.cells = world.cells.copy()
            world.cells["right"] ^= world.ends
            world.table = copy.copy(world.table)
            world.tree = tree
            world.cells["pays"] = 1.0 - world.cells["pays"]
        planner = ClosedPlanner(world, sees="value")
        planner.prepare(agent.scorer)
        roots = world.tree.root_node[world.pool].astype(np.int64)
        result = planner.search(roots, method="gumbel", num_simulations=32, seed=0, gumbel_scale=0.0)
        told.append((planner.paid, planner.value, result.action))
    for plain, turned_round in zip(*told, strict=True):
        np.testing.assert_array_equal(plain, turned_round)


def test_visible_reward_leaves_out_what_knows_the_answer(tree_spec: str) -> None:
    world = TreeWorld(tree_spec, split="all", reward={"verifier": 1.0, "length": -0.25})
    nodes = np.arange(1, world.tree.size)
    inner = nodes[world.tree.parent[nodes] >= 0]
    np.testing.assert_allclose(visible_reward(world, inner, sees="value"), -0.25)
    full = visible_reward(world, inner, sees="verifier")
    assert full.max() == pytest.approx(0.75)  # a correct end: 1 - .25
    with pytest.raises(ConfigError, match="planner_sees"):
        visible_reward(world, inner, sees="all")


def test_tables_and_simulator_agree(tree_spec: str) -> None:
    agent = AlphaZero("ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), **SMALL)
    world = TreeWorld(tree_spec, split="all")
    planner, simulator = ClosedPlanner(world, sees="value"), TreeSimulator(world, agent.scorer, sees="value")
    planner.prepare(agent.scorer)
    nodes = np.flatnonzero(~planner.terminal)[:50]
    judged = simulator.expand(nodes)
    np.testing.assert_allclose(judged.value, planner.value[nodes], atol=1e-6)
    actions = judged.legal.argmax(1)
    moved = simulator.step(nodes, actions)
    np.testing.assert_allclose(moved.reward, planner.paid[moved.states], atol=1e-6)
    np.testing.assert_array_equal(moved.terminated, planner.terminal[moved.states])


@pytest.mark.parametrize("method", ["gumbel", "puct"])
def test_it_learns_and_search_helps(tree_spec: str, method: str) -> None:
    env = gym.make("TokenTree-v0", tree=tree_spec)
    agent = AlphaZero("ChildPolicy", env, method=method, learning_rate=3e-3, **SMALL)
    world = vector_world("TokenTree-v0", 32, tree=tree_spec)
    before = np.nanmean(play_roots(agent, world).success)
    agent.learn(3000, log_interval=0)
    assert np.nanmean(play_roots(agent, world).success) > max(before, 0.7)


@pytest.mark.parametrize("switches", [{"reanalyse": 0.5}, {"value_target": "n_step", "n_step": 3}, {"tabulate": False}])
def test_switches_run(tree_spec: str, switches: dict[str, Any]) -> None:
    agent = AlphaZero("ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), **{**SMALL, **switches})
    agent.learn(150, log_interval=0)
    assert agent.num_timesteps >= 150


def test_expert_iteration_has_no_value(tree_env: gym.Env) -> None:
    agent = ExpertIteration("ChildPolicy", tree_env, **SMALL)
    critic = [p.clone() for p in agent.scorer.critic_parameters()]
    agent.learn(150, log_interval=0)
    assert all((a == b).all() for a, b in zip(critic, agent.scorer.critic_parameters(), strict=True))


def test_predict_searches_where_it_stands_and_says_when_it_cannot(tree_env: gym.Env) -> None:
    agent = AlphaZero("ChildPolicy", tree_env, **SMALL)
    searched: list[int] = []
    search = agent._search
    agent._search = lambda *a, **k: searched.append(1) or search(*a, **k)  # type: ignore[method-assign]
    observation, _ = tree_env.reset(seed=1)
    agent.predict(observation, deterministic=True)
    assert searched
    elsewhere = {key: array.copy() for key, array in observation.items()}
    elsewhere["observations"][0] = 0.987
    searched.clear()
    with pytest.warns(UserWarning, match="raw policy, without search"):
        agent.predict(elsewhere, deterministic=True)
    assert not searched


def test_environments_that_cannot_be_cloned_are_refused() -> None:
    with pytest.raises(ConfigError, match="use PPO"):
        AlphaZero("MlpPolicy", "CartPole-v1", n_episodes=2).learn(10)


def test_any_environment_that_can_be_cloned_is_planned_in(identity: Any) -> None:
    class Cloneable(identity):  # type: ignore[misc, valid-type]
        def clone_state(self) -> dict[str, Any]:
            return {"root": self.root, "time": self.time, "good": self.good}

        def restore_state(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
            self.root, self.time, self.good = state["root"], state["time"], state["good"]
            return self._see()

    agent = AlphaZero("ChildPolicy", Cloneable(), n_episodes=8, num_simulations=16, learning_rate=1e-2, seed=0)
    agent.learn(64, log_interval=0)
    env = Cloneable()
    agent.set_env(env)
    observation, _ = env.reset(seed=0)
    total = 0.0
    for _ in range(2):
        action, _ = agent.predict(observation, deterministic=True)
        observation, reward, *_ = env.step(int(action))
        total += reward
    assert total == 1.0


def test_the_replay_keeps_the_latest(tmp_path: Any) -> None:
    replay = Replay(4)
    replay.add({"x": np.arange(3)})
    replay.add({"x": np.arange(10, 13)})
    assert sorted(replay.rows(np.arange(replay.size))["x"].tolist()) == [2, 10, 11, 12]
    copy_of_it = Replay(1)
    copy_of_it.set_state(replay.state())
    copy_of_it.add({"x": np.array([99])})
    replay.add({"x": np.array([99])})
    np.testing.assert_array_equal(copy_of_it.arrays["x"], replay.arrays["x"])
