"""A perceptron with ReLU, trained for a moment to classify points by the nearest of some seeded centres."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import generator

__all__ = ["build", "inputs"]

WIDTHS = ((64, 256, 2), (96, 384, 3), (128, 640, 3))  # input, hidden, hidden layers
CLASSES = 10
STEPS = 60


class MLP(nn.Module):
    """Linear and ReLU layers; `trained` says that its weights are learned."""

    trained = True

    def __init__(self, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(width, hidden), nn.ReLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(hidden, hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def build(size: int, seed: int) -> nn.Module:
    """Returns the trained perceptron; training is seeded and takes well under a second."""
    module = MLP(*WIDTHS[size])
    source = generator(seed)
    centres = torch.randn(CLASSES, WIDTHS[size][0], generator=source)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    with torch.enable_grad():
        for _ in range(STEPS):
            x = torch.randn(64, WIDTHS[size][0], generator=source)
            loss = nn.functional.cross_entropy(module(x), torch.cdist(x, centres).argmin(dim=1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.requires_grad_(True)


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randn(128, WIDTHS[size][0], generator=generator(seed)),)
