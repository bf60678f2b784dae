"""A video and a text tower: which moment of a clip fits which caption."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import Block, generator

__all__ = ["build", "inputs"]

SHAPES = ((48, 4, 1, 4, 16), (64, 4, 1, 6, 24), (96, 4, 2, 8, 24))  # width, heads, blocks, frames, side
VOCABULARY, LENGTH = 256, 16


class VideoTextTower(nn.Module):
    """Scores every frame of a clip against its caption."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width // 2, (3, 4, 4), stride=(1, 4, 4), padding=(1, 0, 0)),
            nn.BatchNorm3d(width // 2),
            nn.ReLU(),
            nn.Conv3d(width // 2, width, (1, 2, 2), stride=(1, 2, 2)),
        )
        self.vision = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.text = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])

    def forward(self, video: Tensor, tokens: Tensor) -> Tensor:
        frames = self.vision(self.stem(video).mean(dim=(3, 4)).transpose(1, 2))
        caption = self.text(self.embedding(tokens)).mean(dim=1, keepdim=True)
        return (frames * caption).sum(dim=-1)


def build(size: int, seed: int) -> nn.Module:
    return VideoTextTower(*SHAPES[size][:3])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    _, _, _, frames, side = SHAPES[size]
    rng = generator(seed)
    video = torch.randn(4, 3, frames, side, side, generator=rng)
    return video, torch.randint(VOCABULARY, (4, LENGTH), generator=rng)
