"""The state of optimizers as JSON values and named arrays, the form that checkpoints hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from treegym.agents.processes import whole

__all__ = ["array_of", "optimizer_state", "set_optimizer_state", "within"]


def within(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Returns the arrays whose names start with `prefix`, without it."""
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns an optimizer's numbers as JSON values and its tensors as arrays named ``parameter.key``."""
    state = optimizer.state_dict()
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entry in state["state"].items():
        for key, value in _flat(entry):
            if isinstance(value, torch.Tensor):
                arrays[f"{index}.{key}"] = array_of(value)
            else:
                numbers.setdefault(str(index), {})[key] = value
    return {"groups": [{"lr": group["lr"]} for group in state["param_groups"]], "numbers": numbers}, arrays


def _flat(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields what is remembered of a parameter; bitsandbytes wraps a part of it, and takes it back unwrapped."""
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield key, value


def set_optimizer_state(
    optimizer: torch.optim.Optimizer, values: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Takes back what `optimizer_state` returned."""
    state = optimizer.state_dict()
    entries: dict[int, dict[str, Any]] = {}
    for name, array in arrays.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = torch.from_numpy(np.array(array))
    for index, numbers in values["numbers"].items():
        entries.setdefault(int(index), {}).update(numbers)
    for group, saved in zip(state["param_groups"], values["groups"], strict=True):
        group["lr"] = saved["lr"]
    optimizer.load_state_dict({"state": entries, "param_groups": state["param_groups"]})


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """Returns a tensor, all of it where it is in shards, as an array; NumPy has no bfloat16, so it becomes float32."""
    found = whole(tensor.detach()).cpu()
    return (found.float() if found.dtype == torch.bfloat16 else found).numpy()
