"""A stacked LSTM tagger."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import generator

__all__ = ["build", "inputs"]

SHAPES = ((48, 64, 1, 16), (64, 96, 2, 16), (96, 160, 2, 20))  # embedding, hidden, layers, tokens
VOCABULARY = 256


class Tagger(nn.Module):
    """Embeds tokens, reads them with an LSTM, gives each a tag."""

    def __init__(self, width: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=layers, batch_first=True)
        self.hidden = nn.Linear(hidden, hidden)
        self.tag = nn.Linear(hidden, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        y, _ = self.lstm(self.embedding(tokens))
        return self.tag(torch.relu(self.hidden(y)))


def build(size: int, seed: int) -> nn.Module:
    return Tagger(*SHAPES[size][:3])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randint(VOCABULARY, (8, SHAPES[size][3]), generator=generator(seed)),)
