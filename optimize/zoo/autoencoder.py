"""A dense autoencoder with batch norm between its layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import generator

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
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):  # statistics as training would have left them, not 0 and 1
            layer.running_mean.normal_(0.0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return module


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randn(96, WIDTHS[size][0], generator=generator(seed)),)
