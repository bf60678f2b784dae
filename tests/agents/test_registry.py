"""Every agent on every registered environment, and what those that do not fit say."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy

import treegym
from treegym.agents.registry import AGENTS, agent_class, make_agent
from treegym.errors import ConfigError
from treegym.registration import ENVS

ONLY_TREES = {"teacher", "step_vote", "sequence_vote", "rerank"}
ONLY_COMPUTE = {"self_consistency", "adaptive_consistency", "early_stopping", "parallel_probe", "score_threshold"}
SMALL: dict[str, dict[str, Any]] = {
    "alphazero": {"n_episodes": 8, "num_simulations": 4, "n_envs": 8},
    "expert_iteration": {"n_episodes": 8, "num_simulations": 4, "n_envs": 8},
    "vapo": {"n_episodes": 32, "n_envs": 16, "pretrain_updates": 1},
    "mcts": {"num_simulations": 8},
    "beam": {"num_simulations": 8},
    "best_of_n": {"num_simulations": 8},
    "lookahead": {"num_simulations": 8},
}


def _env(env_id: str, spec: str) -> gym.Env:
    return gym.make(env_id, tree=spec) if "TokenTree" in env_id else gym.make(env_id)


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("env_id", ENVS)
def test_every_agent_plays_five_episodes_everywhere(env_id: str, name: str, tree_spec: str) -> None:
    assert treegym.__version__
    env = _env(env_id, tree_spec)
    switches = SMALL.get(
        name, {} if not getattr(agent_class(name), "learns", True) else {"n_episodes": 32, "n_envs": 16}
    )
    if name in ONLY_TREES and "TokenTree" not in env_id:
        with pytest.raises(ConfigError, match=r"teachers|token tree"):
            make_agent(name, env, seed=0, **switches)
        return
    compute = "TestTimeCompute" in env_id
    if (name in ONLY_COMPUTE and not compute) or (name == "oracle" and compute):
        with pytest.raises(ConfigError, match=r"make it in TestTimeCompute-v0|known only of worlds that are closed"):
            make_agent(name, env, seed=0, **switches)
        return
    agent = make_agent(name, env, seed=0, **switches)
    agent.learn(40)
    played = 0
    observation, _ = env.reset(seed=3)
    while played < 5:
        action, _ = agent.predict(observation, deterministic=True)
        assert observation["action_mask"][action]
        observation, _, terminated, truncated, _ = env.step(int(action))
        if terminated or truncated:
            played += 1
            observation, _ = env.reset()


def test_the_oracle_is_right_and_chance_is_not(tree_env: gym.Env) -> None:
    best, _ = evaluate_policy(make_agent("oracle", tree_env), tree_env, 20, warn=False)
    chance, _ = evaluate_policy(make_agent("random", tree_env, seed=0), tree_env, 20, warn=False)
    assert best == 1.0
    assert chance < 0.7


def test_names_and_summaries() -> None:
    assert all(AGENTS.values())
    with pytest.raises(ConfigError, match="Did you mean 'alphazero'"):
        agent_class("alphazer")
    with pytest.raises(ConfigError, match="there is no teacher 9"):
        make_agent("teacher", "TokenTree-v0", teacher=9)


@pytest.mark.parametrize("name", ["sequence_vote", "rerank", "teacher", "step_vote"])
def test_followers_take_the_scripted_answer(name: str, tree_env: gym.Env) -> None:
    """With one teacher's column copied to all and to the primary, every follower walks that teacher's answer."""
    world = tree_env.unwrapped.world  # type: ignore[attr-defined]
    tree = world.tree
    guide = np.asarray(tree.teacher_logp[:, 0], np.float32)
    node = int(tree.root_node[world.pool[0]])
    agent = make_agent(name, tree_env)
    followed = make_agent("teacher", tree_env, teacher=0)
    observation, _ = tree_env.reset(options={"root": int(world.pool[0])})
    action = int(followed.predict(observation)[0])
    first = int(tree.first_child[node])
    children = np.nan_to_num(guide[first : first + int(tree.child_count[node])], nan=-20.0)
    assert action == int(children.argmax())
    assert int(agent.predict(observation)[0]) < int(tree.child_count[node])
