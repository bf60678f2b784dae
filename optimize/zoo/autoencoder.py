"""A dense autoencoder with batch norm between its layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import after_training, generator

__all__ = ["build", "inputs"]

WIDTHS = ((128, 256, 32), (192, 384, 48), (256, 512, 64))  # data, hidden, code


class AutoEncoder(nn.Module):
    """Compresses to a code and rebuilds the input from it."""

    def __init__(self, width: int, hidden: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, code), nn.Tanh()
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def build(size: int, seed: int) -> nn.Module:
    module = AutoEncoder(*WIDTHS[size])
    return after_training(module)


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randn(96, WIDTHS[size][0], generator=generator(seed)),)
