"""The Llama recipe with Qwen's norms on queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import generator
from treegym.optimize.zoo.llama import VOCABULARY, Llama, RMSNorm, RotaryAttention

__all__ = ["build", "inputs"]

SHAPES = ((96, 4, 2, 2, 32), (128, 4, 2, 2, 64), (192, 6, 3, 3, 64))  # width, heads, key heads, blocks, tokens


class QwenAttention(RotaryAttention):
    """Queries and keys are normalised in every head before they are turned."""

    def __init__(self, width: int, heads: int, key_heads: int) -> None:
        super().__init__(width, heads, key_heads)
        self.head_norm = RMSNorm(self.size)

    def rotate(self, x: Tensor, length: int) -> Tensor:
        return super().rotate(self.head_norm(x), length)


class Qwen(Llama):
    """Token ids to next-token logits."""

    def __init__(self, width: int, heads: int, key_heads: int, blocks: int) -> None:
        super().__init__(width, heads, key_heads, blocks)
        for layer in self.layers:
            layer.attention = QwenAttention(width, heads, key_heads)


def build(size: int, seed: int) -> nn.Module:
    return Qwen(*SHAPES[size][:4])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randint(VOCABULARY, (4, SHAPES[size][4]), generator=generator(seed)),)
