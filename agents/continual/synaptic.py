"""Synaptic intelligence: importance is the work a weight did on the way down (arXiv:1703.04200).

omega_k += -g_k * (theta_k' - theta_k)       every step, g the gradient of the task's own loss
Omega_k += omega_k / (D_k^2 + xi)            after the task, D_k how far the weight moved over the task
penalty  = c sum_k Omega_k (theta_k - theta*_k)^2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from treegym.agents.continual.base import Method, Problem
from treegym.errors import ConfigError

__all__ = ["SynapticIntelligence"]


class SynapticIntelligence(Method):
    """Needs no extra pass over the data: importance accrues while learning.

    Args:
        model: the network.
        strength: c.
        damping: xi.
    """

    def __init__(self, model: nn.Module, *, strength: float = 1.0, damping: float = 1e-3) -> None:
        super().__init__(model)
        if not (strength >= 0 and damping >= 0):
            raise ConfigError(f"strength is {strength!r} and damping {damping!r}; both must be at least 0")
        self.strength, self.damping = strength, damping
        self.importance = {name: torch.zeros_like(p) for name, p in model.named_parameters()}  # Omega
        self.work: dict[str, torch.Tensor] = {}  # omega
        self._start: dict[str, torch.Tensor] = {}
        self._star: dict[str, torch.Tensor] | None = None
        self._before: dict[str, torch.Tensor] = {}
        self._gradient: dict[str, torch.Tensor] = {}

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}

    def begin(self) -> None:
        super().begin()
        self._start = self._weights()
        self.work = {name: torch.zeros_like(value) for name, value in self._start.items()}

    def saw_gradients(self) -> None:
        self._before = self._weights()
        self._gradient = {
            name: parameter.grad.detach().clone()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }

    def after_step(self) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self._gradient:
                self.work[name] -= self._gradient[name] * (parameter.detach() - self._before[name])

    def penalty(self) -> torch.Tensor | None:
        if self._star is None:
            return None
        total = torch.zeros(())
        for name, parameter in self.model.named_parameters():
            total = total + (self.importance[name] * (parameter - self._star[name]) ** 2).sum()
        return self.strength * total

    def end(self, problem: Problem, batches: Sequence[Any]) -> bool:
        self._star = self._weights()
        for name, work in self.work.items():
            moved = self._star[name] - self._start[name]
            self.importance[name] += work.clamp(min=0) / (moved**2 + self.damping)  # harmful work protects nothing
        return False
