"""An encoder and a decoder with cross attention, attention written with einsum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import FeedForward, generator

__all__ = ["build", "inputs"]

SHAPES = ((64, 4, 1, 32, 24), (96, 4, 2, 32, 32), (128, 4, 2, 48, 48))  # width, heads, blocks, source, target


class EinsumAttention(nn.Module):
    """Attention as papers write it: two einsums around a softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.size = width // heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
        k = self.k(memory).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
        v = self.v(memory).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
        weights = torch.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k) * self.size**-0.5, dim=-1)
        return self.out(torch.einsum("bhqk,bhkd->bhqd", weights, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Self attention, cross attention where there is a memory, and a feed-forward network; post-norm."""

    def __init__(self, width: int, heads: int, *, cross: bool) -> None:
        super().__init__()
        self.own = EinsumAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross = EinsumAttention(width, heads) if cross else None
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, 4 * width, nn.ReLU())
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.own(x, x))
        if self.cross is not None and memory is not None:
            x = self.norm2(x + self.cross(x, memory))
        return self.norm3(x + self.feed_forward(x))


class EncoderDecoder(nn.Module):
    """Vectors in, vectors out: the source is read by the encoder, the target by the decoder."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(Layer(width, heads, cross=False) for _ in range(blocks))
        self.decoder = nn.ModuleList(Layer(width, heads, cross=True) for _ in range(blocks))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        for layer in self.encoder:
            source = layer(source)
        for layer in self.decoder:
            target = layer(target, source)
        return target


def build(size: int, seed: int) -> nn.Module:
    return EncoderDecoder(*SHAPES[size][:3])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    width, _, _, source, target = SHAPES[size]
    rng = generator(seed)
    return torch.randn(4, source, width, generator=rng), torch.randn(4, target, width, generator=rng)
