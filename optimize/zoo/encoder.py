"""A transformer encoder over token ids, with hand-written attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import Block, generator

__all__ = ["build", "inputs"]

SHAPES = ((96, 4, 2, 32), (128, 4, 2, 64), (192, 6, 3, 64))  # width, heads, blocks, tokens
VOCABULARY = 512


class Encoder(nn.Module):
    """Embeds tokens and positions, runs the blocks, returns a vector a token."""

    def __init__(self, width: int, heads: int, blocks: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.1)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def build(size: int, seed: int) -> nn.Module:
    return Encoder(*SHAPES[size])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randint(VOCABULARY, (4, SHAPES[size][3]), generator=generator(seed)),)
