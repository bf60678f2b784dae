"""A transformer whose feed-forward networks are mixtures of experts with load balancing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import Attention, FeedForward, generator

__all__ = ["build", "inputs"]

SHAPES = ((64, 4, 1, 4, 32), (96, 4, 2, 4, 32), (128, 4, 2, 8, 48))  # width, heads, blocks, experts, tokens
CHOSEN = 2


class Experts(nn.Module):
    """Sends every token to its two best experts; `balance` is a buffer the routing is evened out with.

    The bias on the router, learned from the load instead of by gradient, stands for loss-free load balancing.
    """

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(width, 2 * width, nn.SiLU()) for _ in range(experts))
        self.register_buffer("balance", torch.zeros(experts))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        scores = self.router(flat).softmax(dim=-1)
        chosen = (scores + self.balance).topk(CHOSEN, dim=-1).indices
        weights = scores.gather(-1, chosen)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        out = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            rows, slots = torch.where(chosen == index)
            if len(rows):
                out.index_add_(0, rows, expert(flat[rows]) * weights[rows, slots, None])
        return out.view_as(x)

    def rebalance(self, x: Tensor, rate: float = 0.05, steps: int = 20) -> None:
        """Moves `balance` until the experts carry even loads on `x`."""
        flat = x.reshape(-1, x.shape[-1])
        scores = self.router(flat).softmax(dim=-1)
        for _ in range(steps):
            chosen = (scores + self.balance).topk(CHOSEN, dim=-1).indices
            load = torch.bincount(chosen.flatten(), minlength=len(self.experts)).float()
            self.balance += rate * (load.mean() - load).sign() / len(self.experts)


class MoEBlock(nn.Module):
    """Attention and experts, each behind a norm."""

    def __init__(self, width: int, heads: int, experts: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.experts = Experts(width, experts)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.experts(self.norm2(x))


def build(size: int, seed: int) -> nn.Module:
    width, heads, blocks, experts, length = SHAPES[size]
    module = nn.Sequential(*[MoEBlock(width, heads, experts) for _ in range(blocks)], nn.LayerNorm(width))
    with torch.no_grad():
        for block in module:
            if isinstance(block, MoEBlock):
                block.experts.rebalance(torch.randn(8, length, width, generator=generator(seed)))
    return module


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    width, _, _, _, length = SHAPES[size]
    return (torch.randn(4, length, width, generator=generator(seed)),)
