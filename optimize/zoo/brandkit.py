"""A page and a text: a picture of a layout is read together with words, and each of its patches gets a label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import Block, generator

__all__ = ["build", "inputs"]

SHAPES = ((64, 4, 1, 32), (96, 4, 2, 32), (128, 4, 2, 48))  # width, heads, blocks, side of the page
VOCABULARY, LENGTH, PATCH, LABELS = 256, 12, 8, 10


class PageAndText(nn.Module):
    """Patches and tokens go through the same blocks."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.vision = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.text = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.label = nn.Linear(width, LABELS)

    def forward(self, page: Tensor, tokens: Tensor) -> Tensor:
        patches = self.vision(page).flatten(2).transpose(1, 2)
        x = self.blocks(torch.cat([patches, self.text(tokens)], dim=1))
        return self.label(x[:, : patches.shape[1]])


def build(size: int, seed: int) -> nn.Module:
    return PageAndText(*SHAPES[size][:3])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    side, rng = SHAPES[size][3], generator(seed)
    return torch.randn(4, 3, side, side, generator=rng), torch.randint(VOCABULARY, (4, LENGTH), generator=rng)
