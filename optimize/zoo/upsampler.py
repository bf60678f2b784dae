"""A small convolutional image generator: noise to a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import after_training, generator

__all__ = ["build", "inputs"]

SHAPES = ((32, 24), (48, 32), (64, 40))  # noise, channels
START = 7


class Upsampler(nn.Module):
    """Projects noise to a small map and doubles its side twice."""

    def __init__(self, noise: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.project = nn.Linear(noise, channels * START * START)
        self.norm0 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels // 2)
        self.picture = nn.Conv2d(channels // 2, 1, 3, padding=1)

    def forward(self, noise: Tensor) -> Tensor:
        x = torch.relu(self.norm0(self.project(noise).view(-1, self.channels, START, START)))
        x = nn.functional.interpolate(x, scale_factor=2.0)
        x = torch.relu(self.norm1(self.conv1(x)))
        x = nn.functional.interpolate(x, scale_factor=2.0)
        x = torch.relu(self.norm2(self.conv2(x)))
        return torch.tanh(self.picture(x))


def build(size: int, seed: int) -> nn.Module:
    module = Upsampler(*SHAPES[size])
    return after_training(module)


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randn(4, SHAPES[size][0], generator=generator(seed)),)
