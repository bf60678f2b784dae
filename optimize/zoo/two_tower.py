"""A small vision-language module: two towers whose vectors are compared, as contrastive models do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import Block, generator

__all__ = ["build", "inputs"]

SHAPES = ((64, 4, 1, 24, 16), (96, 4, 1, 32, 24), (128, 4, 2, 32, 32))  # width, heads, blocks, side, tokens
VOCABULARY = 512


class TwoTower(nn.Module):
    """Similarity of every picture to every text of a batch."""

    def __init__(self, width: int, heads: int, blocks: int, length: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, stride=2, padding=1),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.vision = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.1)
        self.text = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.see = nn.Linear(width, width, bias=False)
        self.read = nn.Linear(width, width, bias=False)
        self.temperature = nn.Parameter(torch.tensor(10.0))

    def forward(self, picture: Tensor, tokens: Tensor) -> Tensor:
        seen = self.see(self.vision(self.stem(picture).flatten(2).transpose(1, 2)).mean(dim=1))
        read = self.read(self.text(self.embedding(tokens) + self.positions).mean(dim=1))
        seen = seen / seen.norm(dim=-1, keepdim=True)
        read = read / read.norm(dim=-1, keepdim=True)
        return self.temperature * seen @ read.t()


def build(size: int, seed: int) -> nn.Module:
    width, heads, blocks, _, length = SHAPES[size]
    return TwoTower(width, heads, blocks, length)


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    _, _, _, side, length = SHAPES[size]
    rng = generator(seed)
    return torch.randn(4, 3, side, side, generator=rng), torch.randint(VOCABULARY, (4, length), generator=rng)
