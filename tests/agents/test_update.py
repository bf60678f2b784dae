"""One update: equal to MaskablePPO's, however it is computed and however it is cut up."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from treegym.agents import DAPO, GRPO, PPO, VAPO, DrGRPO
from treegym.agents.backward import Autograd
from treegym.agents.fast.kernels import adam_step
from treegym.agents.fast.passes import Perceptron
from treegym.agents.lesson import Lesson
from treegym.agents.policy_gradient import PolicyGradient

SIZE = 96


def _lesson(agent: PolicyGradient, seed: int = 0) -> Lesson:
    """Returns made-up but consistent data: real observations, random advantages, off-policy old log-probabilities."""
    rng = np.random.default_rng(seed)
    world = agent.world
    assert world is not None
    rows: list[dict[str, np.ndarray]] = []
    world.reset(np.ones(world.num_envs, bool), seed=seed)
    while sum(len(part["action_mask"]) for part in rows) < SIZE:
        rows.append(world.observe())
        mask = rows[-1]["action_mask"].astype(bool)
        outcome = world.step(np.where(mask, rng.random(mask.shape), -1).argmax(1), np.ones(world.num_envs, bool))
        ended = outcome.terminated | outcome.truncated
        if ended.any():
            world.reset(ended)
    joined = {key: np.concatenate([part[key] for part in rows])[:SIZE] for key in rows[0]}
    actions, log_probs, values = agent.scorer.act(joined, rng.random(SIZE))
    noise = rng.normal(size=(5, SIZE)).astype(np.float32)
    return Lesson(
        joined, actions, log_probs + 0.3 * noise[0], noise[1], noise[2], values + noise[3] * 0.2,
        log_probs + 0.2 * noise[4], rng.random(SIZE) < 0.5, np.repeat(np.float32([2, 4, 6]), [16, 32, 48]),
        np.array([2] * 8 + [4] * 8 + [6] * 8),
    )  # fmt: skip


def _gradients(agent: PolicyGradient, lesson: Lesson) -> list[torch.Tensor]:
    agent.gradients(lesson)
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in agent.policy.parameters()]


def test_loss_and_gradients_equal_maskable_ppos(tree_env: gym.Env) -> None:
    """The reference is sb3-contrib's own policy and the loss as its `train` writes it."""
    from sb3_contrib import MaskablePPO

    ours = PPO("MultiInputPolicy", tree_env, n_envs=8, seed=0, ent_coef=0.01, vf_coef=0.5, max_grad_norm=None)
    theirs = MaskablePPO("MultiInputPolicy", tree_env, seed=0, device="cpu")
    theirs.policy.load_state_dict(ours.policy.state_dict())
    lesson = _lesson(ours)
    tensor = {name: torch.from_numpy(getattr(lesson, name)) for name in ("actions", "advantages", "targets")}
    values, log_prob, entropy = theirs.policy.evaluate_actions(
        {key: torch.from_numpy(array) for key, array in lesson.rows.items()},
        tensor["actions"],
        action_masks=lesson.rows["action_mask"],
    )
    ratio = torch.exp(log_prob - torch.from_numpy(lesson.old_log_probs))
    surrogate = torch.min(tensor["advantages"] * ratio, tensor["advantages"] * torch.clamp(ratio, 0.8, 1.2))
    squared = torch.nn.functional.mse_loss(tensor["targets"], values.flatten())
    reference = -surrogate.mean() - 0.01 * entropy.mean() + 0.5 * squared
    reference.backward()
    readable = Autograd(ours.scorer, ours.optimizer, ours.settings, ours.processes, critic=True)
    loss, _ = readable.loss(lesson, ours.whole(lesson), 0.0)
    assert float(loss.detach()) == pytest.approx(float(reference.detach()), abs=1e-6)
    wanted = {name: p.grad for name, p in theirs.policy.named_parameters()}
    for fused in (False, True):
        object.__setattr__(ours.settings, "fused", fused)
        for (name, _), gradient in zip(ours.policy.named_parameters(), _gradients(ours, lesson), strict=True):
            torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-5)
    assert isinstance(ours.backward(), Perceptron)


CASES: list[tuple[type[PolicyGradient], dict[str, Any]]] = [
    (PPO, {"ent_coef": 0.02, "clip_range_vf": 0.1}),
    (PPO, {"clip_range_high": 0.28, "dual_clip": 1.5}),
    (PPO, {"kl_coef": 0.3, "kl_in": "loss", "kl_estimator": "k1"}),
    (DAPO, {"ent_coef": 0.01}),
    (GRPO, {}),
    (DrGRPO, {"ent_coef": 0.01}),
    (VAPO, {"nll_weight": 0.2}),
]


@pytest.mark.parametrize(("kind", "switches"), CASES)
def test_the_compiled_loss_equals_the_written_one(
    tree_env: gym.Env, kind: type[PolicyGradient], switches: dict[str, Any]
) -> None:
    agent = kind("ChildPolicy", tree_env, n_envs=8, seed=0, **switches)
    lesson = _lesson(agent)
    compiled, by_autograd = {}, {}
    for fused, figures in ((True, compiled), (False, by_autograd)):
        object.__setattr__(agent.settings, "fused", fused)
        figures["gradients"] = _gradients(agent, lesson)
        figures["logged"] = agent.gradients(lesson)
    for ours, reference in zip(compiled["gradients"], by_autograd["gradients"], strict=True):
        torch.testing.assert_close(ours, reference, atol=2e-6, rtol=1e-4)
    assert compiled["logged"] == pytest.approx(by_autograd["logged"], abs=1e-4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [PPO, GRPO, DrGRPO, VAPO])
def test_accumulating_gradients_changes_nothing(tree_env: gym.Env, kind: type[PolicyGradient], fused: bool) -> None:
    agent = kind("ChildPolicy", tree_env, n_envs=8, seed=0, fused=fused)
    lesson = _lesson(agent)
    whole = _gradients(agent, lesson)
    object.__setattr__(agent.settings, "micro_batch", 24)  # 4 x 24 instead of 1 x 96
    for in_parts, at_once in zip(_gradients(agent, lesson), whole, strict=True):
        torch.testing.assert_close(in_parts, at_once, atol=1e-6, rtol=1e-4)


def test_the_first_ratio_is_one(tree_env: gym.Env) -> None:
    agent = PPO("ChildPolicy", tree_env, n_envs=8, seed=0)
    figures: list[dict[str, float]] = []
    update = agent.gradients
    agent.gradients = lambda part: figures.append(update(part)) or figures[-1]  # type: ignore[method-assign]
    agent.learn(32, log_interval=0)
    assert figures[0]["clip_fraction"] == 0.0
    assert abs(figures[0]["approx_kl"]) < 1e-6


@pytest.mark.parametrize(("kind", "normalised"), [(PPO, True), (DAPO, False)])
def test_advantages_are_normalised_per_minibatch_or_not_at_all(
    tree_env: gym.Env, kind: type[PolicyGradient], normalised: bool
) -> None:
    agent = kind("ChildPolicy", tree_env, n_envs=8, seed=0, n_episodes=32, batch_size=40, n_epochs=1)
    lesson = _lesson(agent)
    lesson = lesson._replace(advantages=np.linspace(1.0, 3.0, len(lesson.actions), dtype=np.float32))
    seen: list[np.ndarray] = []
    gradients = agent.gradients
    agent.gradients = lambda part: seen.append(part.advantages) or gradients(part)  # type: ignore[func-returns-value,method-assign]
    agent.learn(0)  # a logger
    agent.take_steps(lesson)
    assert [len(part) for part in seen] == [40, 40, 16]
    if normalised:
        np.testing.assert_allclose([part.mean() for part in seen], 0.0, atol=1e-5)
        np.testing.assert_allclose([part.std(ddof=1) for part in seen], 1.0, atol=1e-4)
    else:
        np.testing.assert_array_equal(np.sort(np.concatenate(seen)), lesson.advantages)


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_the_optimizer_by_hand_steps_as_adamw_does(limit: float) -> None:
    rng = np.random.default_rng(0)
    weights = torch.nn.Parameter(torch.from_numpy(rng.normal(size=200).astype(np.float32)))
    theirs = torch.optim.AdamW([weights], lr=0.01, eps=1e-5, weight_decay=0.1)
    ours, mean, square = weights.detach().numpy().copy(), np.zeros(200, np.float32), np.zeros(200, np.float32)
    for step in range(1, 8):
        gradient = rng.normal(size=200).astype(np.float32)
        weights.grad = torch.from_numpy(gradient.copy())
        if limit:
            torch.nn.utils.clip_grad_norm_([weights], limit)
        theirs.step()
        adam_step(ours, gradient, mean, square, float(step), 0.01, 1e-5, 0.1, limit)
    np.testing.assert_allclose(ours, weights.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(square, theirs.state[weights]["exp_avg_sq"].numpy(), rtol=1e-5)


@pytest.mark.parametrize("policy", ["MultiInputPolicy", "ChildPolicy"])
def test_fused_and_plain_training_stay_together(tree_env: gym.Env, policy: str) -> None:
    trained = []
    for fused in (True, False):
        agent = PPO(policy, tree_env, n_envs=16, n_episodes=64, batch_size=64, seed=3, fused=fused)
        trained.append(agent.learn(300, log_interval=0).policy.state_dict())
    for name, tensor in trained[0].items():
        torch.testing.assert_close(tensor, trained[1][name], atol=2e-4, rtol=1e-3)


def test_an_empty_mask_stops_learning_with_a_sentence(tree_env: gym.Env) -> None:
    agent = PPO("ChildPolicy", tree_env, n_envs=8, seed=0)
    lesson = _lesson(agent)
    lesson.rows["action_mask"][5] = 0
    with pytest.raises(ValueError, match="no legal child"):
        agent.gradients(lesson)
