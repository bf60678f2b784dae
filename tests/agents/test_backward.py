"""Every backward pass written by hand beside autograd of the readable loss: the same gradients and figures.

Changing the loss or a pass alone fails here, which the last test shows for both sides.
"""

from __future__ import annotations

import pkgutil
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from treegym.agents import GRPO, PPO, VAPO, DrGRPO
from treegym.agents.backward import Autograd, Backward
from treegym.agents.fast.passes import BY_HAND, CompiledLoss, PackedLayers, Perceptron
from treegym.agents.lesson import Lesson
from treegym.agents.policies.mlp import MultiInputPolicy
from treegym.agents.policy_gradient import PolicyGradient

TREE = "synthetic:roots=40,depth=5,branching=3,width=4,seed=0"
SWITCHES: list[tuple[type[PolicyGradient], dict[str, Any]]] = [
    (PPO, {"ent_coef": 0.02, "clip_range_vf": 0.1}),
    (PPO, {"clip_range_high": 0.28, "dual_clip": 1.5}),
    (PPO, {"kl_coef": 0.3, "kl_in": "loss", "kl_estimator": "k1"}),
    (PPO, {"kl_coef": 0.3, "kl_in": "loss", "kl_estimator": "k3"}),
    (PPO, {"aggregation": "sample"}),
    (PPO, {"aggregation": "constant", "horizon": 48}),
    (GRPO, {}),
    (DrGRPO, {"ent_coef": 0.01}),
    (VAPO, {"nll_weight": 0.2}),
]
POLICIES: dict[type[Backward], tuple[str, dict[str, Any]]] = {
    Perceptron: ("MultiInputPolicy", {"tree": TREE}),
    CompiledLoss: ("ChildPolicy", {"tree": TREE}),
    PackedLayers: ("LMPolicy", {"view": "tokens"}),
}


def _agent(kind: type[Backward], learner: type[PolicyGradient], switches: dict[str, Any]) -> PolicyGradient:
    policy, env = POLICIES[kind]
    size = {"n_episodes": 8, "n_envs": 8} | ({"group_size": 4} if learner is not PPO else {})
    return learner(policy, gym.make("TokenTree-v0", **env), seed=0, **size, **switches)


def _lesson(agent: PolicyGradient) -> Lesson:
    """Returns real episodes with made-up advantages, off-policy."""
    rng = np.random.default_rng(0)
    rollout = agent.collector(None).episodes(8)  # type: ignore[arg-type]
    count = rollout.steps
    noise = rng.normal(size=(5, count)).astype(np.float32)
    return Lesson(
        dict(rollout.rows), rollout.actions, rollout.log_probs + 0.3 * noise[0], noise[1], noise[2],
        rollout.values + 0.2 * noise[3], rollout.log_probs + 0.2 * noise[4], rng.random(count) < 0.5,
        np.repeat(rollout.lengths, rollout.lengths).astype(np.float32), rollout.lengths,
    )  # fmt: skip


def _compared(agent: PolicyGradient, kind: type[Backward]) -> float:
    """Returns the largest difference of gradients and figures between a pass and autograd, relative to their size."""
    learned = (agent.scorer, agent.optimizer, agent.settings, agent.processes)
    lesson, found = _lesson(agent), []
    for made in (kind(*learned, critic=agent.uses_critic), Autograd(*learned, critic=agent.uses_critic)):
        part = made.take(lesson)
        made.clear()
        figures = made(part, agent.whole(part), agent.kl_beta)
        flat = [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in agent.policy.parameters()]
        found.append(torch.cat([*flat, torch.tensor(list(figures.values()))]).clone())
    assert found[1].abs().max() > 1e-3
    return float((found[0] - found[1]).abs().max() / found[1].abs().max())


@pytest.fixture(autouse=True)
def _callbackless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PolicyGradient, "stepper", lambda self, callback: lambda active, outcome: None)


def _cases() -> list[Any]:
    critics = [case for case in SWITCHES if case[0].uses_critic]
    return [(kind, *case) for kind in BY_HAND for case in (critics if kind is Perceptron else SWITCHES)]


@pytest.mark.parametrize(("kind", "learner", "switches"), _cases())
def test_a_pass_by_hand_gives_autograds_gradients(
    kind: type[Backward], learner: type[PolicyGradient], switches: dict[str, Any]
) -> None:
    agent = _agent(kind, learner, switches)
    assert type(agent.backward()) is kind
    assert _compared(agent, kind) < 2e-5


LOSS = {"readable": "treegym.agents.losses.clipped_surrogate", "by hand": "treegym.agents.fast.kernels.token_weights"}
SPOILED = {
    Perceptron: LOSS,
    CompiledLoss: LOSS,
    PackedLayers: {
        "readable": "treegym.agents.policies.lm.LMPolicy.hidden",
        "by hand": "treegym.agents.fast.llama.Llama.states",
    },
}


@pytest.mark.parametrize("kind", BY_HAND)
@pytest.mark.parametrize("side", ["readable", "by hand"])
def test_a_change_of_either_side_is_noticed(kind: type[Backward], side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = _agent(kind, PPO, {"ent_coef": 0.02})
    place = SPOILED[kind][side]
    right = pkgutil.resolve_name(place)
    monkeypatch.setattr(place, lambda *given, **named: 1.001 * right(*given, **named))
    assert _compared(agent, kind) > 2e-5


def test_a_perceptron_with_logits_of_its_own_is_not_taken_for_plain() -> None:
    class Doubled(MultiInputPolicy):
        def logits(self, obs: Any) -> torch.Tensor:
            return 2.0 * super().logits(obs)

    agent = PPO(Doubled, gym.make("TokenTree-v0", tree=TREE), n_envs=8, n_episodes=8, seed=0)
    assert type(agent.backward()) is CompiledLoss
    assert _compared(agent, CompiledLoss) < 2e-5
