"""Parts that several zoo modules share, written by hand as users write them, without fused kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Attention", "Block", "FeedForward", "after_training", "generator", "shape_spectra"]


def generator(seed: int) -> torch.Generator:
    """Returns a CPU generator for fresh inputs."""
    return torch.Generator().manual_seed(seed)


def after_training(module: nn.Module) -> nn.Module:
    """Gives batch norms statistics as training leaves them, not the zeros and ones that they begin with."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(0.0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return module


class Attention(nn.Module):
    """Multi-head attention with three projections and an explicit softmax; `causal` masks the future."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, max_length: int = 256) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.register_buffer("mask", torch.ones(max_length, max_length).tril().bool(), persistent=False)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        source = x if memory is None else memory
        batch, length, width = x.shape
        shape = (batch, -1, self.heads, width // self.heads)
        q = self.query(x).view(shape).transpose(1, 2)
        k = self.key(source).view(shape).transpose(1, 2)
        v = self.value(source).view(shape).transpose(1, 2)
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        if self.causal:
            scores = scores.masked_fill(~self.mask[:length, :length], float("-inf"))
        mixed = scores.softmax(dim=-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, width: int, hidden: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.activation = activation if activation is not None else nn.GELU()
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, hidden: int | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden or 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


def shape_spectra(module: nn.Module, *, decay: float, seed: int) -> None:
    """Gives linear weights singular values that fall as ``rank ** -decay``, the Frobenius norm kept.

    Weights of trained networks have falling spectra, fresh random ones do not; without this, low-rank factorisation
    would look worse on the zoo than it is on real modules. Decay 0 leaves a module as it was initialised.
    """
    if decay == 0.0:
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and min(layer.weight.shape) >= 16:
            u, s, vh = torch.linalg.svd(layer.weight.data, full_matrices=False)
            ranks = torch.arange(1, len(s) + 1, dtype=s.dtype)
            fallen = ranks**-decay
            fallen *= s.norm() / fallen.norm()
            layer.weight.data = (u * fallen) @ vh
