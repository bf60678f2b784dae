"""A causal encoder with two heads: next tokens, and how well the text keeps to each of a few principles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import Block, generator

__all__ = ["build", "inputs"]

SHAPES = ((96, 4, 2, 32), (128, 4, 2, 64), (192, 6, 3, 64))  # width, heads, blocks, tokens
VOCABULARY, PRINCIPLES = 512, 8


class Constitutional(nn.Module):
    """Logits of the next token at every position, and a score of the whole text for each principle."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.Sequential(*[Block(width, heads, causal=True) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.constitution = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, PRINCIPLES))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.blocks(self.embedding(tokens)))
        return {"logits": self.head(x), "principles": self.constitution(x.mean(dim=1))}


def build(size: int, seed: int) -> nn.Module:
    return Constitutional(*SHAPES[size][:3])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randint(VOCABULARY, (4, SHAPES[size][3]), generator=generator(seed)),)
