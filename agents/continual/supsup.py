"""SupSup: the weights stay as they are, and every task finds a subnetwork in them (arXiv:2006.14769).

output = (W * top_k_percent(scores_task)) x;   the gradient passes to the scores as if they were the mask
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from treegym.agents.continual.base import Method
from treegym.errors import ConfigError

__all__ = ["SupSup", "TopScores"]


class TopScores(torch.autograd.Function):
    """1 for the highest share of scores, 0 for the others; straight-through backwards."""

    @staticmethod
    def forward(context: Any, scores: torch.Tensor, share: float) -> torch.Tensor:
        count = max(1, round(share * scores.numel()))
        cut = scores.flatten().kthvalue(scores.numel() - count + 1).values
        return (scores >= cut).to(scores.dtype)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


class _Masked(nn.Module):
    """A weight seen through the mask of the task at hand."""

    def __init__(self, weight: torch.Tensor, share: float) -> None:
        super().__init__()
        self.share, self.task = share, 0
        self.scores = nn.ParameterList()
        self._like = weight.shape

    def add_task(self, generator: torch.Generator) -> None:
        for old in self.scores:
            old.requires_grad_(False)
        # All scores start near 1, so that chance alone decides which weights the first mask keeps.
        self.scores.append(nn.Parameter(1.0 + 0.01 * torch.randn(self._like, generator=generator)))
        self.task = len(self.scores) - 1

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight if not len(self.scores) else weight * TopScores.apply(self.scores[self.task], self.share)


class SupSup(Method):
    """Fixed weights, one mask per task.

    Args:
        model: the network; its weights are frozen.
        share: the share of weights of each layer that a task keeps.
        signed: replace every weight by its sign times the layer's Kaiming scale, as the paper does with networks that
            were never trained; a trained network keeps its weights.
        seed: of the scores' beginnings.
    """

    def __init__(self, model: nn.Module, *, share: float = 0.7, signed: bool = False, seed: int = 0) -> None:
        super().__init__(model)
        if not 0.0 < share <= 1.0:
            raise ConfigError(f"share is {share}; a task keeps more than 0 and at most all (1) of the weights")
        model.requires_grad_(False)
        self._generator = torch.Generator().manual_seed(seed)
        self._masks: list[_Masked] = []
        embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        for module in list(model.modules()):
            if isinstance(module, nn.Linear) and id(module.weight) not in embedded:
                if signed:
                    scale = (2.0 / (share * module.in_features)) ** 0.5
                    module.weight.copy_(module.weight.sign() * scale)
                mask = _Masked(module.weight, share)
                parametrize.register_parametrization(module, "weight", mask)
                self._masks.append(mask)

    def begin(self) -> None:
        super().begin()
        for mask in self._masks:
            mask.add_task(self._generator)

    @contextmanager
    def recalled(self, task: int) -> Iterator[nn.Module]:
        now = [mask.task for mask in self._masks]
        for mask in self._masks:
            mask.task = task
        try:
            yield self.model
        finally:
            for mask, before in zip(self._masks, now, strict=True):
                mask.task = before
