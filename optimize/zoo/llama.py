"""The Llama recipe in small: RMSNorm, rotary positions, grouped queries, SwiGLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.optimize.zoo.layers import generator

__all__ = ["build", "inputs"]

SHAPES = ((96, 4, 2, 2, 32), (128, 4, 2, 2, 64), (192, 6, 3, 3, 64))  # width, heads, key heads, blocks, tokens
VOCABULARY = 256
MAX_LENGTH = 128


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class RotaryAttention(nn.Module):
    """Causal attention with rotary positions; several query heads share a key head."""

    def __init__(self, width: int, heads: int, key_heads: int) -> None:
        super().__init__()
        self.heads, self.key_heads, self.size = heads, key_heads, width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, key_heads * self.size, bias=False)
        self.v_proj = nn.Linear(width, key_heads * self.size, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        angles = torch.outer(torch.arange(MAX_LENGTH), 10_000.0 ** (-torch.arange(0, self.size, 2) / self.size))
        self.register_buffer("cos", torch.cat([angles.cos()] * 2, dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat([angles.sin()] * 2, dim=-1), persistent=False)
        self.register_buffer("bias", torch.full((MAX_LENGTH, MAX_LENGTH), -1e9).triu(1), persistent=False)

    def rotate(self, x: Tensor, length: int) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * self.cos[:length] + torch.cat([-second, first], dim=-1) * self.sin[:length]

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.key_heads, self.size).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.key_heads, self.size).transpose(1, 2)
        q, k = self.rotate(q, length), self.rotate(k, length)
        k = k.repeat_interleave(self.heads // self.key_heads, dim=1)
        v = v.repeat_interleave(self.heads // self.key_heads, dim=1)
        scores = torch.matmul(q, k.transpose(2, 3)) * self.size**-0.5 + self.bias[:length, :length]
        mixed = torch.matmul(nn.functional.softmax(scores, dim=-1), v)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    """Attention and a gated feed-forward network, each behind a norm."""

    def __init__(self, width: int, heads: int, key_heads: int) -> None:
        super().__init__()
        self.input_norm = RMSNorm(width)
        self.attention = RotaryAttention(width, heads, key_heads)
        self.post_norm = RMSNorm(width)
        self.gate_proj = nn.Linear(width, 8 * width // 3, bias=False)
        self.up_proj = nn.Linear(width, 8 * width // 3, bias=False)
        self.down_proj = nn.Linear(8 * width // 3, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.input_norm(x))
        y = self.post_norm(x)
        return x + self.down_proj(nn.functional.silu(self.gate_proj(y)) * self.up_proj(y))


class Llama(nn.Module):
    """Token ids to next-token logits."""

    def __init__(self, width: int, heads: int, key_heads: int, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width, heads, key_heads) for _ in range(blocks))
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def build(size: int, seed: int) -> nn.Module:
    return Llama(*SHAPES[size][:4])


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randint(VOCABULARY, (4, SHAPES[size][4]), generator=generator(seed)),)
