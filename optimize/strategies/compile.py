"""`torch.compile`: the strong form of kernel fusion, at the price of compiling on the first call."""

from __future__ import annotations

import shutil
from typing import Any

import torch
from torch import nn

from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable

__all__ = ["Compiled", "Strategy"]


class Compiled(nn.Module):
    """Holds a compiled module, so that the state dict keeps its names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.call = torch.compile(module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


class Strategy(HybridOptimizationStrategy):
    """Compiles the module with TorchInductor."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        if not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
            raise NotApplicable("no C++ compiler on the path")
        return Compiled(module.requires_grad_(False))
