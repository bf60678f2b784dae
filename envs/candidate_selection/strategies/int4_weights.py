"""Weight-only int4 by torchao, for linear layers whose shapes its kernels take."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from treegym.envs.candidate_selection.strategies.base import Cast, HybridOptimizationStrategy, NotApplicable, linears
from treegym.errors import require

__all__ = ["Strategy"]

GROUP = 32  # weights that share a scale


class Strategy(HybridOptimizationStrategy):
    """Casts the module to bf16 and packs its linear weights to int4 in groups."""

    def apply(self, module: nn.Module, sample: tuple[Any, ...]) -> nn.Module:
        fitting = {
            name for name, layer in linears(module) if layer.in_features % GROUP == 0 and layer.out_features % 16 == 0
        }
        if not fitting or any(parameter.dtype != torch.float32 for parameter in module.parameters()):
            raise NotApplicable(f"no float32 linear layer of {GROUP}-divisible input and 16-divisible output size")
        torchao = require("torchao.quantization", extra="torchao", purpose="int4 weights")
        module = module.to(torch.bfloat16)
        config = torchao.Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format="opaque")
        torchao.quantize_(module, config, filter_fn=lambda layer, name: name in fitting)
        return Cast(module, torch.bfloat16, torch.float32)
