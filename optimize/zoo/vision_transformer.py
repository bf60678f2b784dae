"""A vision transformer: patches, a class token and a pre-norm encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import Block, generator

__all__ = ["build", "inputs"]

SHAPES = ((96, 4, 2, 32), (128, 4, 2, 40), (160, 5, 3, 48))  # width, heads, blocks, side of the picture
PATCH = 8


class VisionTransformer(nn.Module):
    """Class logits of a picture."""

    def __init__(self, width: int, heads: int, blocks: int, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.positions = nn.Parameter(torch.randn((side // PATCH) ** 2 + 1, width) * 0.1)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 20)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.patches(picture).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


def build(size: int, seed: int) -> nn.Module:
    return VisionTransformer(*SHAPES[size])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    side = SHAPES[size][3]
    return (torch.randn(8, 3, side, side, generator=generator(seed)),)
