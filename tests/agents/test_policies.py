"""Policies: permutations of children, masks, and weights shared with SB3."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from treegym.agents import PPO
from treegym.agents.policies import POLICIES, policy_class
from treegym.agents.policies.child import ChildPolicy
from treegym.envs.layout import ObservationLayout
from treegym.errors import ConfigError


def _policy(identity: Any, **kwargs: Any) -> ChildPolicy:
    env = identity()
    layout = {"num_children": 4, "state": ["step"], "child": ["prior", "mark"]}
    torch.manual_seed(0)
    policy = ChildPolicy(env.observation_space, env.action_space, layout=layout, **kwargs)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_()
    return policy


def _rows(count: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(count, 4, generator=generator) < 0.6
    mask[:, 0] = True
    return {"observations": torch.randn(count, 9, generator=generator), "action_mask": mask.to(torch.int8)}


def test_permuting_children_permutes_scores_and_keeps_the_value(identity: Any) -> None:
    policy, rows = _policy(identity), _rows()
    order = torch.tensor([2, 0, 3, 1])
    children = rows["observations"][:, 1:].reshape(-1, 4, 2)[:, order].reshape(-1, 8)
    permuted = {
        "observations": torch.cat([rows["observations"][:, :1], children], 1),
        "action_mask": rows["action_mask"][:, order],
    }
    torch.testing.assert_close(policy.logits(permuted), policy.logits(rows)[:, order])
    torch.testing.assert_close(policy.values(permuted), policy.values(rows))
    torch.testing.assert_close(policy.child_values(permuted), policy.child_values(rows)[:, order])


def test_illegal_children_have_no_influence(identity: Any) -> None:
    policy, rows = _policy(identity), _rows()
    illegal = (rows["action_mask"] == 0)[..., None].expand(-1, -1, 2).reshape(-1, 8)
    other = {**rows, "observations": rows["observations"].clone()}
    other["observations"][:, 1:][illegal] = 99.0
    legal = rows["action_mask"].bool()
    torch.testing.assert_close(policy.logits(other)[legal], policy.logits(rows)[legal])
    torch.testing.assert_close(policy.values(other), policy.values(rows))


def test_the_actor_does_not_depend_on_the_critics_parameters(identity: Any) -> None:
    policy, rows = _policy(identity), _rows()
    policy.logits(rows).sum().backward()
    assert all(parameter.grad is None for parameter in policy.critic_parameters())
    policy.zero_grad()
    (policy.values(rows).sum() + policy.child_values(rows).sum()).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in policy.actor_parameters())


def test_sampling_and_learning_use_the_same_log_probability(identity: Any) -> None:
    policy, rows = _policy(identity), _rows(200)
    arrays = {key: tensor.numpy() for key, tensor in rows.items()}
    actions, log_probs, values = policy.act(arrays, np.random.default_rng(0).random(200))
    judged = policy.evaluate(rows, torch.from_numpy(actions))
    np.testing.assert_allclose(log_probs, judged.log_prob.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(values, judged.value.detach().numpy(), atol=1e-5)
    assert arrays["action_mask"][np.arange(200), actions].all()


def test_perceptrons_are_sb3s_own(identity: Any) -> None:
    from sb3_contrib import MaskablePPO

    env = identity()
    theirs = MaskablePPO("MultiInputPolicy", env, seed=0, device="cpu")
    ours = PPO("MultiInputPolicy", env, seed=1)
    ours.policy.load_state_dict(theirs.policy.state_dict())
    rows = _rows()
    actions = rows["action_mask"].float().argmax(1)
    values, log_prob, entropy = theirs.policy.evaluate_actions(rows, actions, action_masks=rows["action_mask"].numpy())
    judged = ours.scorer.evaluate(rows, actions)
    torch.testing.assert_close(judged.log_prob, log_prob)
    torch.testing.assert_close(judged.entropy, entropy)
    torch.testing.assert_close(judged.value, values.flatten())


def test_environments_without_a_layout_are_told_what_to_use() -> None:
    with pytest.raises(ConfigError, match="use MlpPolicy"):
        PPO("ChildPolicy", "CartPole-v1")


def test_a_layout_that_does_not_fit_is_refused(identity: Any) -> None:
    env = identity()
    with pytest.raises(ConfigError, match="the observation has 9"):
        ChildPolicy(env.observation_space, env.action_space, layout={"num_children": 4, "state": [], "child": ["a"]})


def test_unknown_policies_are_guessed() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'ChildPolicy'"):
        policy_class("ChildPolicies")
    assert set(POLICIES) >= {"ChildPolicy", "MultiInputPolicy", "MlpPolicy", "LMPolicy"}


def test_layout_of_the_tree_reaches_the_policy(tree_env: gym.Env) -> None:
    layout: ObservationLayout = tree_env.unwrapped.layout  # type: ignore[attr-defined]
    policy = PPO("ChildPolicy", tree_env, n_envs=4).policy
    assert (policy.num_children, policy.num_child) == (layout.num_children, len(layout.child))
