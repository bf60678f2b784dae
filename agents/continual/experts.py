"""A mixture of experts that grows: each block's feed-forward part becomes experts behind a router.

    y = sum over the top k experts of  gate_e(x) * expert_e(x),   gate = softmax(router(x)), renormalised over the top k

A load-balancing loss keeps the router from sending everything to one expert (arXiv:2101.03961):

    balance = E * sum_e (share of tokens sent to e) * (mean gate of e)

A new task brings new experts with rows of their own in the router; the old ones are frozen, and with them, unless told
otherwise, the rest of the network. Old inputs may still be sent to new experts: this limits forgetting, but does not
exclude it.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from treegym.agents.continual.base import Method
from treegym.agents.continual.blocks import blocks_of, feed_forward_of
from treegym.errors import ConfigError

__all__ = ["Experts", "Mixture"]


class Mixture(nn.Module):
    """Experts behind a router, instead of a feed-forward module."""

    def __init__(self, expert: nn.Module, size: int, *, count: int, top_k: int, generator: torch.Generator) -> None:
        super().__init__()
        self.experts = nn.ModuleList([expert])
        self.router = nn.ParameterList([torch.zeros(1, size)])  # a row for each expert
        self.top_k = top_k
        self.balance = torch.zeros(())  # of the last pass
        for _ in range(count - 1):
            self.add_expert(generator)

    def add_expert(self, generator: torch.Generator) -> None:
        """Adds a copy of the newest expert and a row to the router."""
        self.experts.append(copy.deepcopy(self.experts[-1]))
        for parameter in self.experts[-1].parameters():
            parameter.requires_grad_(True)
        self.router.append(0.02 * torch.randn(1, self.router[0].shape[-1], generator=generator))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gates = torch.softmax(hidden @ torch.cat(list(self.router)).T, dim=-1)  # [..., E]
        top, chosen = gates.topk(min(self.top_k, len(self.experts)), dim=-1)
        top = top / top.sum(-1, keepdim=True)
        weights = torch.zeros_like(gates).scatter(-1, chosen, top)
        used = (weights > 0).float().flatten(0, -2)
        self.balance = len(self.experts) * (used.mean(0) / used.mean(0).sum() * gates.flatten(0, -2).mean(0)).sum()
        return torch.stack([weights[..., e, None] * expert(hidden) for e, expert in enumerate(self.experts)]).sum(0)


class Experts(Method):
    """Grows every block's mixture with each task.

    Args:
        model: a transformer; its feed-forward parts are replaced.
        experts: at the start, and how many each new task adds.
        top_k: how many experts each token is sent to.
        balance: weight of the load-balancing loss.
        freeze_trunk: whether everything but the new experts is frozen after the first task.
        seed: of the routers' new rows.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        experts: int = 2,
        top_k: int = 2,
        balance: float = 0.01,
        freeze_trunk: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        if experts < 1 or top_k < 1:
            raise ConfigError(f"experts is {experts} and top_k {top_k}; both must be at least 1")
        self.balance, self.freeze_trunk, self._per_task = balance, freeze_trunk, experts
        self._generator = torch.Generator().manual_seed(seed)
        self.mixtures: list[Mixture] = []
        size = next(p.shape[-1] for p in blocks_of(model).parameters() if p.dim() == 1)
        for block in blocks_of(model):
            name, part = feed_forward_of(block)
            mixture = Mixture(part, size, count=experts, top_k=top_k, generator=self._generator)
            setattr(block, name, mixture)
            self.mixtures.append(mixture)

    def begin(self) -> None:
        super().begin()
        if self.tasks == 1:
            return
        if self.freeze_trunk:
            self.model.requires_grad_(False)
        for mixture in self.mixtures:
            mixture.requires_grad_(False)
            for _ in range(self._per_task):
                mixture.add_expert(self._generator)

    def extra_loss(self) -> torch.Tensor:
        """Returns the load-balancing loss of the last forward pass, averaged over blocks."""
        return self.balance * torch.stack([mixture.balance for mixture in self.mixtures]).mean()
