"""`torch.compile`: the strong form of kernel fusion, at the price of compiling on the first call."""

from __future__ import annotations

import shutil
from typing import Any, ClassVar

import torch
from torch import nn

from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable

__all__ = ["Autotune", "Compiled", "Freezing", "Strategy"]


class Compiled(nn.Module):
    """Holds a compiled module, so that the state dict keeps its names.

    Gradients are off in a call with weights built in: PyTorch builds them in only then.
    """

    def __init__(self, module: nn.Module, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.module = module
        self.call = torch.compile(module, options=options)
        self.built_in = bool(options)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.built_in:
            return self.call(*args, **kwargs)
        with torch.no_grad():
            return self.call(*args, **kwargs)


class Strategy(HybridOptimizationStrategy):
    """Compiles the module with TorchInductor."""

    options: ClassVar[dict[str, Any] | None] = None

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        if not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
            raise NotApplicable("no C++ compiler on the path")
        return Compiled(module.requires_grad_(False), self.options)


class Freezing(Strategy):
    """Takes the weights for constants: they are packed, and folded into each other, once."""

    options: ClassVar = {"freezing": True}


class Autotune(Strategy):
    """The same, and generated products are tried against the library's."""

    options: ClassVar = {"freezing": True, "max_autotune": True}
