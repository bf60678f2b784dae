"""MLP-Mixer: perceptrons over tokens and over channels, in turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import FeedForward, generator

__all__ = ["build", "inputs"]

SHAPES = ((32, 96, 2), (48, 128, 3), (64, 192, 3))  # tokens, channels, blocks


class MixerBlock(nn.Module):
    """Mixes tokens, then channels."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.tokens = FeedForward(tokens, 2 * tokens)
        self.norm2 = nn.LayerNorm(channels)
        self.channels = FeedForward(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


def build(size: int, seed: int) -> nn.Module:
    tokens, channels, blocks = SHAPES[size]
    return nn.Sequential(*[MixerBlock(tokens, channels) for _ in range(blocks)], nn.LayerNorm(channels))


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    tokens, channels, _ = SHAPES[size]
    return (torch.randn(4, tokens, channels, generator=generator(seed)),)
