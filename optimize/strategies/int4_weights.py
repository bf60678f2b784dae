"""Weight-only int4 in groups: PyTorch's packed kernel on a CPU (torchao's own for it), torchao's on a GPU.

The CPU kernel is made for bf16: with float32 rows it is fifty times slower, so rows are cast on the way in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.errors import require
from treegym.optimize.strategies.base import (
    Arguments,
    Cast,
    HybridOptimizationStrategy,
    NotApplicable,
    linears,
    replace,
)

__all__ = ["Int4Linear", "Strategy"]

GROUP = 32  # weights that share a scale and a zero


class Int4Linear(nn.Module):
    """A linear layer with int4 weights: ``w = (q - 8) scale + zero``, q in 0..15, a scale and a zero for each group."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        groups = layer.weight.data.reshape(layer.out_features, -1, GROUP)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        scale = (high - low).clamp_min(1e-8) / 15
        q = ((groups - low) / scale).round().clamp(0, 15).to(torch.int32).reshape(layer.weight.shape)
        self.packed: Tensor
        self.scales: Tensor
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(q, 1))
        scale, zero = scale.squeeze(-1), (low + 8 * scale).squeeze(-1)
        scales = torch.stack([scale, zero], dim=-1).transpose(0, 1)
        self.register_buffer("scales", scales.to(torch.bfloat16).contiguous())
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        scales = self.scales.to(torch.bfloat16)  # a cast of the whole module to fp16 takes them along
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.packed, GROUP, scales)
        out = out.to(x.dtype).reshape(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


class Strategy(HybridOptimizationStrategy):
    """Packs the linear weights whose shapes the kernels take."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        fitting = [
            (name, layer)
            for name, layer in linears(module)
            if not layer.in_features % GROUP and not layer.out_features % 16
        ]
        if not fitting or any(parameter.dtype != torch.float32 for parameter in module.parameters()):
            raise NotApplicable(f"no float32 linear layer of {GROUP}-divisible input and 16-divisible output size")
        if any(parameter.device.type != "cpu" for parameter in module.parameters()):
            return _torchao(module, {name for name, _ in fitting})
        if fitting[0][0] == "":
            return Int4Linear(fitting[0][1])
        for name, layer in fitting:
            replace(module, name, Int4Linear(layer))
        return module


def _torchao(module: nn.Module, names: set[str]) -> nn.Module:
    """Packs for a GPU, where the kernels compute in bf16."""
    torchao = require("torchao.quantization", extra="torchao", purpose="int4 weights on a GPU")
    module = module.to(torch.bfloat16)
    config = torchao.Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format="tile_packed_to_4d")
    torchao.quantize_(module, config, filter_fn=lambda layer, name: name in names)
    return Cast(module, torch.bfloat16, torch.float32)
