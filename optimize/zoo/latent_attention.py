"""Attention over compressed keys and values, as multi-head latent attention keeps them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import FeedForward, generator

__all__ = ["build", "inputs"]

SHAPES = ((96, 4, 24, 1, 48), (128, 4, 32, 2, 48), (192, 6, 48, 2, 64))  # width, heads, latent, blocks, tokens


class LatentAttention(nn.Module):
    """Keys and values are decompressed from one small latent vector a token."""

    def __init__(self, width: int, heads: int, latent: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query = nn.Linear(width, width)
        self.compress = nn.Linear(width, latent)
        self.key = nn.Linear(latent, width)
        self.value = nn.Linear(latent, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        latent = self.compress(x)
        q = self.query(x).reshape(batch, length, self.heads, self.size).permute(0, 2, 1, 3)
        k = self.key(latent).reshape(batch, length, self.heads, self.size).permute(0, 2, 3, 1)
        v = self.value(latent).reshape(batch, length, self.heads, self.size).permute(0, 2, 1, 3)
        weights = torch.softmax(torch.matmul(q, k) / self.size**0.5, dim=-1)
        return self.out(torch.matmul(weights, v).permute(0, 2, 1, 3).reshape(batch, length, width))


class LatentBlock(nn.Module):
    """Latent attention and a feed-forward network."""

    def __init__(self, width: int, heads: int, latent: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = LatentAttention(width, heads, latent)
        self.feed_forward = FeedForward(width, 3 * width, nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


def build(size: int, seed: int) -> nn.Module:
    width, heads, latent, blocks, _ = SHAPES[size]
    return nn.Sequential(*[LatentBlock(width, heads, latent) for _ in range(blocks)], nn.LayerNorm(width))


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    width, _, _, _, length = SHAPES[size]
    return (torch.randn(4, length, width, generator=generator(seed)),)
