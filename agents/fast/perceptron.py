"""Gradients and steps of plain perceptrons by hand, for SB3's `MlpPolicy` and `MultiInputPolicy`.

Weights, gradients and moments stay where the module and the torch optimizer have them (their tensors become views of
one flat buffer), so everything else, including checkpoints, does not notice.

Letters: N tokens, D inputs, K children.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from torch import nn

from treegym.agents.backward import Backward
from treegym.agents.fast.kernels import adam_step, loss_by_kernel
from treegym.agents.gradient_settings import GradientSettings
from treegym.agents.lesson import Lesson, Whole
from treegym.agents.masking import MASK, mask_of
from treegym.agents.processes import Processes

__all__ = ["Perceptron"]

LINE = 16  # float32 of a cache line
FLAT = "flat"  # rows of a lesson that this pass takes: the network's input


class Perceptron(Backward):
    """A plain actor-critic perceptron on flat weights; the policy and the optimizer are such as `fits`."""

    policy: Any

    def __init__(
        self,
        policy: Any,
        optimizer: torch.optim.Optimizer,
        settings: GradientSettings,
        processes: Processes,
        *,
        critic: bool,
    ) -> None:
        super().__init__(policy, optimizer, settings, processes, critic=critic)
        self.relu = policy.activation_fn is nn.ReLU
        self.actor = [*_linear(policy.mlp_extractor.policy_net), policy.action_net]
        self.judge = [*_linear(policy.mlp_extractor.value_net), policy.value_net]
        parameters = list(optimizer.param_groups[0]["params"])
        # Every tensor begins on a cache line: sums must not round differently for where a tensor happens to lie.
        size = sum(_padded(p.numel()) for p in parameters)
        self.weights, self.gradient, self.mean, self.square = (torch.zeros(size) for _ in range(4))
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []  # each parameter with its part of the gradient
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
            self._parts.append((p, self.gradient[part].view_as(p)))
        self._flat = tuple(tensor.numpy() for tensor in (self.weights, self.gradient, self.mean, self.square))
        slices = {id(p): gradient for p, gradient in self._parts}
        self._slices = {id(m): (slices[id(m.weight)], slices[id(m.bias)]) for m in (*self.actor, *self.judge)}
        self._actor_weights = [(m.weight.data, m.bias.data) for m in self.actor]
        self._critic_weights = [(m.weight.data, m.bias.data) for m in self.judge]

    @staticmethod
    def fits(policy: Any, optimizer: torch.optim.Optimizer) -> bool:
        """Returns whether a policy is a plain perceptron on the CPU whose every parameter the optimizer moves."""
        if not policy.plain_perceptron or not policy.share_features_extractor:
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

    def take(self, lesson: Lesson) -> Lesson:
        mask = mask_of(lesson.rows, int(self.policy.action_space.n))
        return lesson._replace(rows={FLAT: self.flatten(lesson.rows).numpy(), MASK: mask})

    @torch.no_grad()
    def __call__(self, part: Lesson, whole: Whole, kl_beta: float) -> dict[str, float]:
        self.policy.count(len(part.actions))  # it goes past the policy, which counts for itself
        x = torch.from_numpy(part.rows[FLAT])
        logits, actor = self._pass(x, self._actor_weights)
        values, critic = self._pass(x, self._critic_weights)
        by_logits, by_values, figures = loss_by_kernel(
            self.settings, part, whole, kl_beta, logits.numpy(), values.numpy()[:, 0], part.rows[MASK]
        )
        self._back(torch.from_numpy(by_logits), x, actor, self.actor)
        self._back(torch.from_numpy(by_values)[:, None], x, critic, self.judge)
        return figures

    def clear(self) -> None:
        """Puts the flat gradient back where others took it away; it is written over, not added to."""
        if self._parts[0][0].grad is not self._parts[0][1]:
            for parameter, gradient in self._parts:
                parameter.grad = gradient

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
            by_weight, by_bias = self._slices[id(layer)]
            torch.mm(signal.t(), inputs[depth], out=by_weight)
            torch.sum(signal, 0, out=by_bias)
            if depth:
                signal = torch.mm(signal, layer.weight.data)
                active = hidden[depth - 1]
                if self.relu:
                    signal.mul_(active > 0)
                else:
                    signal.addcmul_(signal * active, active, value=-1.0)


def _linear(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.children() if isinstance(module, nn.Linear)]


def _padded(count: int) -> int:
    return -(-count // LINE) * LINE
