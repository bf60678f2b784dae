"""Elastic weight consolidation: a spring on every weight, as stiff as the weight matters (arXiv:1612.00796).

    penalty = lambda/2 sum_k F_k (theta_k - theta*_k)^2,   F_k = E_s E_{a ~ pi} [ (d log pi(a|s) / d theta_k)^2 ]

The expectation is over outcomes drawn from the model, and squares are taken example by example: the square of a
batch's mean gradient would vanish with the batch's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from treegym.agents.continual.base import Method, Problem
from treegym.errors import ConfigError

__all__ = ["EWC", "fisher_information"]


def fisher_information(
    model: nn.Module, problem: Problem, batches: Sequence[Any], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Returns the diagonal of the Fisher information, one tensor per parameter."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    examples = 0
    for batch in batches:
        for log_prob in problem.sampled_log_probs(model, batch, generator):
            model.zero_grad(set_to_none=True)
            log_prob.backward()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None and name in total:
                    total[name] += parameter.grad.detach() ** 2
            examples += 1
    model.zero_grad(set_to_none=True)
    return {name: value / max(examples, 1) for name, value in total.items()}


class EWC(Method):
    """One spring for every task learned.

    Args:
        model: the network.
        strength: lambda.
        seed: of the outcomes drawn for the Fisher information.
    """

    def __init__(self, model: nn.Module, *, strength: float = 1000.0, seed: int = 0) -> None:
        super().__init__(model)
        if not strength >= 0:
            raise ConfigError(f"strength is {strength!r}; it must be at least 0")
        self.strength = strength
        self._generator = torch.Generator().manual_seed(seed)
        self.anchors: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []  # (theta*, F) of each task

    def penalty(self) -> torch.Tensor | None:
        if not self.anchors:
            return None
        current = dict(self.model.named_parameters())
        total = torch.zeros(())
        for star, fisher in self.anchors:
            for name, importance in fisher.items():
                total = total + (importance * (current[name] - star[name]) ** 2).sum()
        return 0.5 * self.strength * total

    def end(self, problem: Problem, batches: Sequence[Any]) -> bool:
        fisher = fisher_information(self.model, problem, batches, self._generator)
        star = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        self.anchors.append((star, fisher))
        return False
