"""Latent attention and experts in one block, as DeepSeek's models have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.latent_attention import LatentAttention
from treegym.optimize.zoo.layers import generator
from treegym.optimize.zoo.moe import Experts

__all__ = ["build", "inputs"]

# width, heads, latent, blocks, experts, tokens
SHAPES = ((64, 4, 16, 1, 4, 32), (96, 4, 24, 2, 4, 32), (128, 4, 32, 2, 8, 48))
VOCABULARY = 256


class DeepSeekBlock(nn.Module):
    """Attention over compressed keys and values, then a mixture of experts, each behind a norm."""

    def __init__(self, width: int, heads: int, latent: int, experts: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = LatentAttention(width, heads, latent)
        self.experts = Experts(width, experts)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.experts(self.norm2(x))


class DeepSeek(nn.Module):
    """Token ids to next-token logits."""

    def __init__(self, width: int, heads: int, latent: int, blocks: int, experts: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.Sequential(*[DeepSeekBlock(width, heads, latent, experts) for _ in range(blocks)])
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(tokens)))


def build(size: int, seed: int) -> nn.Module:
    return DeepSeek(*SHAPES[size][:5])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randint(VOCABULARY, (4, SHAPES[size][5]), generator=generator(seed)),)
