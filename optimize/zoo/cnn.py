"""Plain convolutions with batch norm and pooling, and a linear classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import generator

__all__ = ["build", "inputs"]

SHAPES = ((16, 2, 28), (24, 3, 32), (32, 3, 40))  # channels, stages, side of the picture


def build(size: int, seed: int) -> nn.Module:
    channels, stages, _ = SHAPES[size]
    layers: list[nn.Module] = []
    previous = 3
    for stage in range(stages):
        width = channels * 2**stage
        norm = nn.BatchNorm2d(width)
        norm.running_mean.normal_(0.0, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
        layers += [nn.Conv2d(previous, width, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2)]
        previous = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(previous * 16, 10))


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    side = SHAPES[size][2]
    return (torch.randn(4, 3, side, side, generator=generator(seed)),)
