"""What a strategy is, and the wrapper that several of them end in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from dataclasses import replace as dataclass_replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Arguments", "Cast", "Given", "HybridOptimizationStrategy", "NotApplicable", "call", "linears", "map_tensors",
    "replace", "tensors_of",
]  # fmt: skip

Arguments = tuple[Any, ...] | dict[str, Any]  # of a module: in their order, or by name
_SEED = 70_000_003  # of inputs to look at


class NotApplicable(Exception):
    """A strategy found nothing to do in this module; the message says what it looked for."""


@dataclass(frozen=True)
class Given:
    """What a strategy may use beside the module and one sample of its inputs."""

    inputs: Callable[[int], Arguments] | None = None  # fresh inputs by seed; None: there is the sample only
    limit: float = 0.01  # the error a candidate may make
    folder: Path | None = None  # where programs of back ends are kept, so that each is built once

    def samples(self, sample: Arguments, count: int) -> list[Arguments]:
        """Returns inputs to look at: other ones than those that candidates are measured on."""
        if self.inputs is None:
            return [sample]
        return [self.inputs(_SEED + i) for i in range(count)]


class HybridOptimizationStrategy:
    """One way to make a module faster or smaller.

    `apply` gets a deep copy in evaluation mode that it may change, and a sample of the module's inputs; it returns the
    optimised module (the same object or a wrapper) or raises `NotApplicable`. Dropping the copy undoes everything.
    The other attributes are facts that a strategy from outside this package declares; those here are in a table.
    """

    name: str = ""
    family: str = "custom"  # what it is found by beside its name
    stage: int = 9  # strategies of an ensemble are applied in this order; number formats are 10 to 15
    nominal: tuple[float, float, float] = (1.0, 1.0, 1.0)  # gains to expect at first: speed, memory, accuracy
    conflicts: tuple[str, ...] = ()  # strategies that cannot be in the same ensemble
    given: Given = Given()  # set before `apply` is called

    def missing(self) -> str:
        """Returns what must be installed before it can work, and how; empty where nothing is missing."""
        return ""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        raise NotImplementedError


class Cast(nn.Module):
    """Runs a module in another dtype: floating-point inputs are cast on the way in, outputs on the way out."""

    def __init__(self, module: nn.Module, dtype: torch.dtype, outer: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.dtype = dtype
        self.outer = outer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        down: Callable[[Tensor], Tensor] = lambda x: x.to(self.dtype) if x.is_floating_point() else x  # noqa: E731
        up: Callable[[Tensor], Tensor] = lambda x: x.to(self.outer) if x.dtype == self.dtype else x  # noqa: E731
        out = self.module(*[map_tensors(a, down) for a in args], **{k: map_tensors(v, down) for k, v in kwargs.items()})
        return map_tensors(out, up)


def call(module: nn.Module, arguments: Arguments) -> Any:
    """Calls a module on its arguments."""
    return module(**arguments) if isinstance(arguments, dict) else module(*arguments)


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Applies `function` to every tensor in nested tuples, lists, dicts and dataclasses (model outputs included)."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        mapped = {key: map_tensors(item, function) for key, item in value.items()}
        return mapped if type(value) is dict else type(value)(**mapped)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[map_tensors(item, function) for item in value])
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(item, function) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: map_tensors(getattr(value, one.name), function) for one in fields(value) if one.init}
        return dataclass_replace(value, **parts)
    return value


def tensors_of(value: Any) -> list[Tensor]:
    """Returns the tensors that `map_tensors` would come to, in its order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, one.name) for one in fields(value) if one.init]
    else:
        return []
    return [tensor for part in parts for tensor in tensors_of(part)]


def linears(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Returns the plain linear layers by name."""
    return [(name, layer) for name, layer in module.named_modules() if type(layer) is nn.Linear]


def replace(module: nn.Module, name: str, new: nn.Module) -> None:
    """Puts `new` where the submodule `name` was."""
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)
