"""Modules of a dozen kinds that the zoo does not have, each with its inputs: what `selection_peers.py` compares on."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["KINDS"]

Inputs = Callable[[int], tuple[Tensor, ...]]


class ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        same = before == after and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 192, blocks: int = 4) -> None:
        super().__init__()
        self.patches, self.places = nn.Conv2d(3, width, 8, 8), nn.Parameter(torch.randn(1, 64, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 6, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.head = nn.Linear(width, 100)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.blocks(patches).mean(1))


class Block(nn.Module):
    """A transformer block with attention written by hand."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        normed, size = self.first(x), width // self.heads
        q, k, v = (
            layer(normed).view(batch, length, self.heads, size).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(-2, -1) / size**0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf"))
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.dense(self.second(x))


class Tokens(nn.Module):
    def __init__(self, *, causal: bool, width: int = 256, blocks: int = 3, vocabulary: int = 2000) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(256, width)
        self.blocks = nn.Sequential(*(Block(width, 8, causal=causal) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tokens(ids) + self.places(torch.arange(ids.shape[1])))))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.GRU | nn.LSTM], width: int = 128) -> None:
        super().__init__()
        self.tokens, self.layers = nn.Embedding(500, width), kind(width, 2 * width, 2, batch_first=True)
        self.head = nn.Linear(2 * width, 20)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.tokens(ids))[0])


class Bag(nn.Module):
    """A ranking model: a bag of items and dense features."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(5000, 64, mode="mean")
        self.net = nn.Sequential(nn.Linear(77, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 1))

    def forward(self, items: Tensor, dense: Tensor) -> Tensor:
        return self.net(torch.cat([self.bag(items), dense], 1))


def _convolutions(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.SiLU(),
        nn.Conv2d(after, after, 3, padding=1), nn.SiLU(),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down = nn.ModuleList([_convolutions(3, width), _convolutions(width, 2 * width)])
        self.middle = _convolutions(2 * width, 4 * width)
        self.up = nn.ModuleList([_convolutions(6 * width, 2 * width), _convolutions(3 * width, width)])
        self.out = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        x = F.interpolate(self.middle(F.max_pool2d(second, 2)), scale_factor=2.0)
        x = F.interpolate(self.up[0](torch.cat([x, second], 1)), scale_factor=2.0)
        return self.out(self.up[1](torch.cat([x, first], 1)))


class Mixture(nn.Module):
    def __init__(self, width: int = 256, experts: int = 4) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(width, experts), nn.Linear(width, 64)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).softmax(-1).unsqueeze(-2)
        return self.head((torch.stack([expert(x) for expert in self.experts], -1) * shares).sum(-1) + x)


class Detector(nn.Module):
    """Several outputs, by name."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        stem = (nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(*stem, ResidualBlock(width, width), ResidualBlock(width, 2 * width, 2))
        self.kind, self.box, self.there = (nn.Conv2d(2 * width, count, 1) for count in (10, 4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.body(x)
        return {"kinds": self.kind(found), "boxes": self.box(found).sigmoid(), "there": self.there(found)}


class Dilated(nn.Module):
    """Convolutions over time."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(8, width, 1), nn.Conv1d(width, 6, 1)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, padding=2**i, dilation=2**i) for i in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = x + F.gelu(layer(x))
        return self.last(x)


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )  # fmt: skip


def _conv_net() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4096, 10))


def _resnet() -> nn.Module:
    blocks = (ResidualBlock(32, 32), ResidualBlock(32, 64, 2), ResidualBlock(64, 64))
    return nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _numbers(*shape: int) -> Inputs:
    return lambda seed: (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)),)


def _ids(highest: int, *shape: int) -> Inputs:
    return lambda seed: (torch.randint(highest, shape, generator=torch.Generator().manual_seed(seed)),)


def _bag(seed: int) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(5000, (128, 12), generator=rng), torch.randn(128, 13, generator=rng)


KINDS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "mlp": (_mlp, _numbers(32, 256)),
    "resnet": (_resnet, _numbers(4, 3, 32, 32)),
    "vit": (VisionTransformer, _numbers(4, 3, 64, 64)),
    "gru": (lambda: Recurrent(nn.GRU), _ids(500, 4, 32)),
    "encoder": (lambda: Tokens(causal=False), _ids(2000, 4, 64)),
    "unet": (UNet, _numbers(1, 3, 64, 64)),
    "mixture": (Mixture, _numbers(64, 256)),
    "conv_net": (_conv_net, _numbers(8, 3, 32, 32)),
    "detector": (Detector, _numbers(2, 3, 64, 64)),
    "bag": (Bag, _bag),
    "dilated": (Dilated, _numbers(8, 8, 128)),
    "decoder": (lambda: Tokens(causal=True), _ids(2000, 2, 96)),
    "lstm": (lambda: Recurrent(nn.LSTM), _ids(500, 4, 32)),
}
