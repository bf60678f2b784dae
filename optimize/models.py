"""Models by name, each with the function that builds it: the zoo, and what users and installed packages register."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from treegym.optimize import zoo
from treegym.registry import Registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "get_all_models"]

MODELS = Registry("model", {}, group="treegym.optimizable_models")


def get_all_models() -> dict[str, Callable[[], nn.Module]]:
    """Returns name -> build function; modules of the zoo carry `example_inputs`, a function of a seed."""
    found = {f"{name}/{size}": _zoo_builder(name, size) for name in zoo.ZOO for size in zoo.SIZES}
    return found | {name: MODELS.find(name) for name in MODELS}


def _zoo_builder(name: str, size: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        module = zoo.build(name, size)
        module.example_inputs = lambda seed: zoo.inputs(name, size, seed)  # type: ignore[assignment]
        return module

    return build
