"""Every backward pass written by hand, and which of them an update takes: the quickest that fits, else autograd.

`Perceptron` replaces network, loss and optimizer; `CompiledLoss` the loss alone, for any policy that learns step by
step; `PackedLayers` the layers of a Llama. ``fused=False`` switches all of them off.
"""

from __future__ import annotations

from typing import Any

import torch

from treegym.agents.backward import Autograd, Backward
from treegym.agents.fast.kernels import loss_by_kernel
from treegym.agents.fast.perceptron import Perceptron
from treegym.agents.gradient_settings import GradientSettings
from treegym.agents.lesson import Lesson, Whole
from treegym.agents.masking import mask_of
from treegym.agents.processes import Processes

__all__ = ["BY_HAND", "CompiledLoss", "PackedLayers", "Perceptron", "fastest"]


class CompiledLoss(Backward):
    """The loss and its gradient by logits and values in one compiled pass; the network's part by autograd."""

    def __call__(self, part: Lesson, whole: Whole, kl_beta: float) -> dict[str, float]:
        policy = self.policy
        obs = policy.tensors(part.rows)
        if self.critic:
            logits, values = policy.both(obs)
        else:
            logits, values = policy.logits(obs), torch.zeros(len(part.actions))
        by_logits, by_values, figures = loss_by_kernel(
            self.settings, part, whole, kl_beta, logits.detach().float().cpu().numpy(),
            values.detach().float().cpu().numpy(), mask_of(part.rows, int(policy.action_space.n)),
        )  # fmt: skip
        outputs, gradients = [logits], [torch.from_numpy(by_logits).to(logits)]
        if self.critic:
            outputs.append(values)
            gradients.append(torch.from_numpy(by_values).to(values))
        else:
            figures["value_loss"] = 0.0
        torch.autograd.backward(outputs, gradients)
        return figures


class PackedLayers(Autograd):
    """The layers of a language model as the policy has them, by hand where they are a small Llama's (`llama.py`)."""

    def __call__(self, part: Lesson, whole: Whole, kl_beta: float) -> dict[str, float]:
        total, figures = self.loss(part, whole, kl_beta)
        total.backward()
        return figures


BY_HAND: tuple[type[Backward], ...] = (Perceptron, CompiledLoss, PackedLayers)


def fastest(
    policy: Any,
    optimizer: torch.optim.Optimizer,
    settings: GradientSettings,
    processes: Processes,
    *,
    critic: bool,
) -> type[Backward]:
    """Returns the quickest pass that fits."""
    if not settings.fused:
        return Autograd
    if policy.unit == "episode":
        return PackedLayers
    alone = critic and settings.micro_batch is None and processes.alone
    return Perceptron if alone and Perceptron.fits(policy, optimizer) else CompiledLoss
