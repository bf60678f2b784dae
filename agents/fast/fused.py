"""Gradients of plain perceptrons by hand: the same steps as autograd takes, without its bookkeeping.

`loss_by_kernel` replaces the loss by one compiled pass for any policy; `Perceptron` also replaces the network's
backward pass and the optimizer, for SB3's `MlpPolicy` and `MultiInputPolicy`. Weights and moments stay where the
module and the torch optimizer have them (their tensors become views of one flat buffer), so everything else, including
checkpoints, does not notice.

Letters: N tokens, D inputs, K children.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from torch import nn

from treegym.agents.fast.kernels import FIGURES, Coefficients, adam_step, loss_gradients
from treegym.agents.gradient_settings import GradientSettings
from treegym.agents.lesson import Lesson, Whole
from treegym.agents.masking import EMPTY_MASK

LINE = 16  # float32 of a cache line
__all__ = ["Perceptron", "coefficients", "loss_by_kernel", "token_weights"]


def coefficients(settings: GradientSettings, whole: Whole, kl_beta: float) -> Coefficients:
    """Returns the loss's switches as numbers."""
    return Coefficients(
        clip_low=float(whole.clip_low),
        clip_high=float(whole.clip_high),
        dual_clip=float(settings.dual_clip or 0.0),
        ent_coef=float(whole.ent_coef),
        kl_beta=float(kl_beta) if settings.kl_in == "loss" else 0.0,
        kl_kind=3 if settings.kl_estimator == "k3" else 1,
        value=float(settings.vf_coef) / whole.tokens,
        value_clip=float(settings.clip_range_vf or 0.0),
        nll=float(whole.nll_coef) / whole.correct_tokens if whole.correct_tokens else 0.0,
        tokens=float(whole.tokens),
    )


def token_weights(settings: GradientSettings, part: Lesson, whole: Whole) -> np.ndarray:
    """Returns what each token counts in the policy's loss ``[N] float32``, as `losses.aggregate` has it."""
    if settings.aggregation == "sample":
        return (1.0 / (part.length * whole.episodes)).astype(np.float32)
    share = 1.0 / whole.tokens
    if settings.aggregation == "constant":
        share = 1.0 / (whole.episodes * float(settings.horizon or 1))
    return np.full(len(part.actions), share, np.float32)


def loss_by_kernel(
    settings: GradientSettings,
    part: Lesson,
    whole: Whole,
    kl_beta: float,
    logits: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Returns the gradient by logits ``[N, K]`` and by values ``[N]``, and the figures to log."""
    by_logits, by_values = np.empty_like(logits), np.empty_like(values)
    *figures, empty = loss_gradients(
        logits, values, mask, part.actions, part.old_log_probs, part.advantages, part.targets, part.old_values,
        part.reference, part.correct, token_weights(settings, part, whole), coefficients(settings, whole, kl_beta),
        by_logits, by_values,
    )  # fmt: skip
    if empty >= 0:
        raise ValueError(EMPTY_MASK)
    return by_logits, by_values, dict(zip(FIGURES, figures, strict=True))


class Perceptron:
    """A plain actor-critic perceptron on flat weights.

    Args:
        policy: a `MlpPolicy` or `MultiInputPolicy` for which `fits` holds.
        optimizer: AdamW over all of its parameters.
        settings: the learner's.
    """

    def __init__(self, policy: Any, optimizer: torch.optim.Optimizer, settings: GradientSettings) -> None:
        self.policy, self.optimizer, self.settings = policy, optimizer, settings
        self.relu = policy.activation_fn is nn.ReLU
        self.actor = [m for m in policy.mlp_extractor.policy_net if isinstance(m, nn.Linear)] + [policy.action_net]
        self.critic = [m for m in policy.mlp_extractor.value_net if isinstance(m, nn.Linear)] + [policy.value_net]
        parameters = list(optimizer.param_groups[0]["params"])
        # Every tensor begins on a cache line: sums must not round differently for where a tensor happens to lie.
        size = sum(_padded(p.numel()) for p in parameters)
        self.weights, self.gradient, self.mean, self.square = (torch.zeros(size) for _ in range(4))
        self.slices: dict[int, torch.Tensor] = {}  # id of a parameter: its part of the gradient
        self.steps = 0
        at = 0
        for p in parameters:
            part = slice(at, at + p.numel())
            at += _padded(p.numel())
            self.weights[part] = p.data.reshape(-1)
            state = optimizer.state[p]
            if state:
                self.mean[part], self.square[part] = state["exp_avg"].reshape(-1), state["exp_avg_sq"].reshape(-1)
                self.steps = int(state["step"])
            p.data = self.weights[part].view_as(p)
            state["exp_avg"], state["exp_avg_sq"] = self.mean[part].view_as(p), self.square[part].view_as(p)
            state["step"] = torch.tensor(float(self.steps))
            self.slices[id(p)] = self.gradient[part].view_as(p)
        self._flat = tuple(tensor.numpy() for tensor in (self.weights, self.gradient, self.mean, self.square))
        self._actor_weights = [(m.weight.data, m.bias.data) for m in self.actor]
        self._critic_weights = [(m.weight.data, m.bias.data) for m in self.critic]

    @staticmethod
    def fits(policy: Any, optimizer: torch.optim.Optimizer) -> bool:
        """Returns whether a policy is a plain perceptron on the CPU whose every parameter the optimizer moves."""
        if not isinstance(policy, ActorCriticPolicy) or not policy.share_features_extractor:
            return False
        space = policy.observation_space
        seen = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
        if not all(isinstance(part, spaces.Box) and not is_image_space(part) for part in seen):
            return False  # SB3 turns such observations into something else first
        moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return (
            not list(policy.features_extractor.parameters())
            and policy.activation_fn in (nn.Tanh, nn.ReLU)
            and len(optimizer.param_groups) == 1
            and moved == {id(p) for p in policy.parameters()}
            and all(p.device.type == "cpu" and p.dtype == torch.float32 for p in policy.parameters())
        )

    def bound(self) -> bool:
        """Returns whether the module and the optimizer still use these buffers (loading a state replaces them)."""
        for p in self.optimizer.param_groups[0]["params"]:
            state = self.optimizer.state[p]
            if not state or state["exp_avg"].untyped_storage().data_ptr() != self.mean.untyped_storage().data_ptr():
                return False
            if p.untyped_storage().data_ptr() != self.weights.untyped_storage().data_ptr():
                return False
        return True

    def flatten(self, rows: dict[str, np.ndarray]) -> torch.Tensor:
        """Returns the network's input ``[N, D] float32``: the parts of the observation side by side, as SB3 does."""
        space = self.policy.observation_space
        keys = list(space.spaces) if isinstance(space, spaces.Dict) else ["observations"]
        parts = [np.asarray(rows[key], np.float32).reshape(len(rows[key]), -1) for key in keys]
        return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))

    def forward(self, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits ``[N, K]`` and values ``[N]``, both float32."""
        logits, _ = self._pass(x, self._actor_weights)
        values, _ = self._pass(x, self._critic_weights)
        return logits.numpy(), values.numpy()[:, 0]

    @torch.no_grad()
    def learn(self, x: torch.Tensor, part: Lesson, mask: np.ndarray, whole: Whole, kl_beta: float) -> dict[str, float]:
        """Writes the gradient of the loss of one update batch into the flat buffer; returns the figures to log."""
        logits, actor = self._pass(x, self._actor_weights)
        values, critic = self._pass(x, self._critic_weights)
        by_logits, by_values, figures = loss_by_kernel(
            self.settings, part, whole, kl_beta, logits.numpy(), values.numpy()[:, 0], mask
        )
        self._back(torch.from_numpy(by_logits), x, actor, self.actor)
        self._back(torch.from_numpy(by_values)[:, None], x, critic, self.critic)
        return figures

    def step(self) -> None:
        """Clips the gradient and takes AdamW's step."""
        s = self.settings
        self.steps += 1
        rate = float(self.optimizer.param_groups[0]["lr"])
        adam_step(*self._flat, float(self.steps), rate, s.adam_eps, s.weight_decay, float(s.max_grad_norm or 0.0))

    def finish(self) -> None:
        """Writes the number of steps back to where the torch optimizer keeps it."""
        for p in self.optimizer.param_groups[0]["params"]:
            self.optimizer.state[p]["step"].fill_(float(self.steps))

    def _pass(
        self, x: torch.Tensor, layers: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Returns the output and the hidden layers' activations."""
        hidden = []
        for weight, bias in layers[:-1]:
            x = torch.addmm(bias, x, weight.t())
            x = x.relu_() if self.relu else x.tanh_()
            hidden.append(x)
        weight, bias = layers[-1]
        return torch.addmm(bias, x, weight.t()), hidden

    def _back(self, signal: torch.Tensor, x: torch.Tensor, hidden: list[torch.Tensor], layers: list[Any]) -> None:
        """Writes the gradients of a stack of layers, given the loss's gradient by its output."""
        inputs = [x, *hidden]
        for depth in range(len(layers) - 1, -1, -1):
            layer = layers[depth]
            torch.mm(signal.t(), inputs[depth], out=self.slices[id(layer.weight)])
            torch.sum(signal, 0, out=self.slices[id(layer.bias)])
            if depth:
                signal = torch.mm(signal, layer.weight.data)
                active = hidden[depth - 1]
                if self.relu:
                    signal.mul_(active > 0)
                else:
                    signal.addcmul_(signal * active, active, value=-1.0)


def _padded(count: int) -> int:
    return -(-count // LINE) * LINE
