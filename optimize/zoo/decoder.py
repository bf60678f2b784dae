"""A causal transformer decoder with hand-written attention and a language-model head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import Block, generator

__all__ = ["build", "inputs"]

SHAPES = ((96, 3, 2, 48), (128, 4, 3, 48), (192, 6, 3, 64))  # width, heads, blocks, tokens
VOCABULARY = 256


class Decoder(nn.Module):
    """Next-token logits at every position."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.randn(256, width) * 0.1)
        self.blocks = nn.ModuleList(Block(width, heads, causal=True) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def build(size: int, seed: int) -> nn.Module:
    return Decoder(*SHAPES[size][:3])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randint(VOCABULARY, (4, SHAPES[size][3]), generator=generator(seed)),)
