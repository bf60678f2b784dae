"""How an update batch becomes gradients: the contract of every backward pass, and the readable one.

The readable pass is autograd through `losses.loss`. Passes written by hand (`treegym.agents.fast.passes`) give the same
gradients, which a test holds them to, one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch

from treegym.agents.gradient_settings import GradientSettings
from treegym.agents.lesson import Lesson, Whole
from treegym.agents.losses import loss
from treegym.agents.policies.base import ChildScorer
from treegym.agents.processes import Processes

__all__ = ["Autograd", "Backward"]


class Backward(ABC):
    """Writes the gradient of `losses.loss` where the optimizer reads it, and lets the optimizer step.

    Args:
        policy: what learns.
        optimizer: over its parameters.
        settings: the learner's.
        processes: those that learn together.
        critic: whether the policy's value is learned, too.
    """

    def __init__(
        self,
        policy: ChildScorer,
        optimizer: torch.optim.Optimizer,
        settings: GradientSettings,
        processes: Processes,
        *,
        critic: bool,
    ) -> None:
        self.policy, self.optimizer, self.settings = policy, optimizer, settings
        self.processes, self.critic = processes, critic

    def take(self, lesson: Lesson) -> Lesson:
        """Returns a lesson with its rows in the form that this pass reads."""
        return lesson

    @abstractmethod
    def __call__(self, part: Lesson, whole: Whole, kl_beta: float) -> dict[str, float]:
        """Adds the gradient of a (micro-)batch of the `whole` to the parameters' ``.grad``; returns `FIGURES`."""

    def clear(self) -> None:
        """Forgets the gradient of the last update batch."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Clips the gradient and takes the step."""
        if self.settings.max_grad_norm is not None:
            self.processes.clip(self.optimizer.param_groups[0]["params"], self.settings.max_grad_norm)
        self.optimizer.step()

    def finish(self) -> None:  # noqa: B027 (most have nothing to do)
        """Called when the steps of a rollout are taken."""

    def bound(self) -> bool:
        """Returns whether policy and optimizer are still as this pass found them."""
        return True


class Autograd(Backward):
    """The readable pass: what is learned, as PyTorch works it out."""

    def __call__(self, part: Lesson, whole: Whole, kl_beta: float) -> dict[str, float]:
        with self.policy.plainly():
            total, figures = self.loss(part, whole, kl_beta)
            total.backward()
        return figures

    def loss(self, part: Lesson, whole: Whole, kl_beta: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Returns the loss of a (micro-)batch, and figures to log."""
        policy = self.policy

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(array, device=next(policy.parameters()).device)

        judged = policy.evaluate(
            policy.tensors(part.rows),
            tensor(part.actions),
            with_value=self.critic,
            episode_lengths=part.lengths if policy.unit == "episode" else None,
        )
        value = judged.value if self.critic else None
        return loss(judged.log_prob, judged.entropy, value, part.map(tensor), whole, self.settings, kl_beta)
