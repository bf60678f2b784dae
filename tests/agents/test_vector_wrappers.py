"""Wrappers around vector environments are trained on as given, or refused; never dropped."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import TransformReward

from treegym.agents import PPO
from treegym.agents.play.worlds import make_world
from treegym.errors import ConfigError


def test_wrapped_batches_pay_what_the_wrapper_pays(tree_spec: str) -> None:
    batch = gym.make_vec("TokenTree-v0", num_envs=4, tree=tree_spec, autoreset_mode="Disabled")
    world = make_world(TransformReward(batch, lambda reward: reward + 7.0))
    everyone = np.ones(4, np.bool_)
    world.reset(everyone, seed=0)
    actions = world.observe()["action_mask"].argmax(1)
    assert (world.step(actions, everyone).reward >= 7.0).all()


def test_an_agent_learns_from_the_wrapped_reward(tree_spec: str) -> None:
    batch = gym.make_vec("TokenTree-v0", num_envs=8, tree=tree_spec, autoreset_mode="Disabled")
    agent = PPO("ChildPolicy", TransformReward(batch, lambda reward: reward - 3.0), n_episodes=16, seed=0)
    agent.learn(50)
    returns = [episode["r"] for episode in agent.ep_info_buffer or ()]
    assert returns
    assert max(returns) < -1.0  # unwrapped, none is below 0


@pytest.mark.parametrize("env_id", ["TokenTree-v0", "CartPole-v1"])
def test_wrappers_around_lanes_that_reset_themselves_are_refused(env_id: str) -> None:
    batch = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point")
    with pytest.raises(ConfigError, match=r"TransformReward is wrapped .* autoreset_mode=\"Disabled\""):
        make_world(TransformReward(batch, lambda reward: reward))
    with pytest.raises(ConfigError, match="TransformReward is wrapped"):
        make_world(TransformReward(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"), lambda r: r))


@pytest.mark.parametrize("wrapped", [True, False])
def test_lanes_that_cannot_be_made_are_told(wrapped: bool) -> None:
    from gymnasium.envs.classic_control import CartPoleEnv
    from gymnasium.wrappers import TransformReward

    env = TransformReward(gym.make("CartPole-v1"), lambda reward: reward) if wrapped else CartPoleEnv()
    with pytest.warns(UserWarning, match=r"n_envs=4, but .*CartPole.* cannot be made again .*one lane is played"):
        assert make_world(env, num_envs=4).num_envs == 1
    assert make_world(gym.make("CartPole-v1"), num_envs=4).num_envs == 4
