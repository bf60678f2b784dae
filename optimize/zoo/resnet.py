"""Residual blocks of convolutions with batch norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import after_training, generator

__all__ = ["build", "inputs"]

SHAPES = ((16, 1, 24), (24, 2, 24), (32, 2, 32))  # channels, blocks a stage, side of the picture


class Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def build(size: int, seed: int) -> nn.Module:
    channels, blocks, _ = SHAPES[size]
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    previous = channels
    for stage in range(2):
        width = channels * 2**stage
        for block in range(blocks):
            layers.append(Residual(previous, width, 2 if stage and not block else 1))
            previous = width
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(previous, 10))
    return after_training(module)


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    side = SHAPES[size][2]
    return (torch.randn(2, 3, side, side, generator=generator(seed)),)
