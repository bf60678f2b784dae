"""A convolutional stem whose map is read by transformer blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import Block, generator

__all__ = ["build", "inputs"]

SHAPES = ((64, 4, 1, 24), (96, 4, 2, 24), (128, 4, 2, 32))  # width, heads, blocks, side of the picture


class ConvTransformer(nn.Module):
    """Two strided convolutions with batch norm, then attention over the cells of the map."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.head = nn.Linear(width, 10)

    def forward(self, picture: Tensor) -> Tensor:
        x = nn.functional.relu(self.norm1(self.conv1(picture)))
        x = nn.functional.relu(self.norm2(self.conv2(x)))
        return self.head(self.blocks(x.flatten(2).transpose(1, 2)).mean(dim=1))


def build(size: int, seed: int) -> nn.Module:
    return ConvTransformer(*SHAPES[size][:3])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    side = SHAPES[size][3]
    return (torch.randn(4, 3, side, side, generator=generator(seed)),)
