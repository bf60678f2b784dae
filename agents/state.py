"""The state of optimizers as JSON values and named arrays, the form that checkpoints hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from treegym.agents.processes import whole
from treegym.agents.schema import Expected, check_arrays, check_json
from treegym.checks import is_number
from treegym.errors import DataError

__all__ = ["array_of", "expected_weights", "optimizer_state", "set_optimizer_state", "within"]


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
    optimizer: torch.optim.Optimizer, values: dict[str, Any], arrays: Mapping[str, np.ndarray], where: str = "optimizer"
) -> None:
    """Takes back what `optimizer_state` returned; DataError for what does not fit the optimizer's parameters.

    Fused optimizers read and write as many numbers of a moment as the parameter has, however few there are.
    """
    state = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    check_json(values, {"groups": [{"lr": _rate}], "numbers": {"*": {"*": float}}}, where)
    if len(values["groups"]) != len(state["param_groups"]):
        raise DataError(f"{where}: it has {len(values['groups'])} groups; {len(state['param_groups'])} were expected")
    entries: dict[int, dict[str, Any]] = {}
    for name, number in [(f"{i}.{k}", v) for i, numbers in values["numbers"].items() for k, v in numbers.items()]:
        index, key = _parted(name, len(parameters), where)
        entries.setdefault(index, {})[key] = number
    for name, array in arrays.items():
        index, key = _parted(name, len(parameters), where)
        check_arrays({name: array}, {name: _moment(parameters[index], key, array)}, where)
        entries.setdefault(index, {})[key] = torch.from_numpy(np.array(array))
    for index, entry in entries.items():
        if not isinstance(optimizer, torch.optim.Adam) or entry.keys() - {"master"} == _ADAM:  # AdamW is an Adam
            continue
        raise DataError(f"{where}: of parameter {index} it remembers {sorted(entry)}; {sorted(_ADAM)} were expected")
    for group, saved in zip(state["param_groups"], values["groups"], strict=True):
        group["lr"] = saved["lr"]
    optimizer.load_state_dict({"state": entries, "param_groups": state["param_groups"]})


_ADAM = {"step", "exp_avg", "exp_avg_sq"}
_BLOCK = 256  # numbers that share a scale in bitsandbytes' moments of 8 bits


def _rate(value: Any) -> bool:
    return is_number(value) and 0 <= value < 1e6


def _parted(name: str, count: int, where: str) -> tuple[int, str]:
    """Returns the parameter and the key of a remembered value named ``parameter.key``."""
    index, _, key = name.partition(".")
    if not index.isascii() or not index.isdigit() or len(index) > 9 or int(index) >= count:
        raise DataError(f"{where}: {name[:80]!r} belongs to no parameter; there are {count}")
    return int(index), key


def _moment(parameter: torch.Tensor, key: str, array: np.ndarray) -> Expected:
    """Returns what a remembered array must be."""
    shape = tuple(parameter.shape)
    if key == "step":
        return Expected((), np.float32, 0.0, 2.0**53)
    if key.startswith("qmap"):
        return Expected((256,), np.float32)
    if key.startswith("absmax"):
        return Expected((-(-parameter.numel() // _BLOCK),), np.float32, 0.0)
    if key in ("state1", "state2"):
        return Expected(shape, np.uint8 if array.dtype == np.uint8 else np.float32)
    dtype: Any = np.float64 if parameter.dtype == torch.float64 else np.float32
    if parameter.dtype == torch.float16 and array.dtype == np.float16:  # as they were before there were float32 copies
        dtype = np.float16
    return Expected(shape, dtype, 0.0 if "sq" in key else -np.inf)


def expected_weights(module: torch.nn.Module) -> dict[str, Expected]:
    """Returns what the arrays of a module's weights must be: finite; only buffers may hold anything."""
    learned = dict(module.named_parameters(remove_duplicate=False))
    found = {}
    for name, tensor in module.state_dict().items():
        dtype = torch.empty(0, dtype=torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype).numpy().dtype
        bounds = {} if name in learned else {"nan": True}
        found[name] = Expected(tuple(tensor.shape), dtype, **bounds)
    return found


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """Returns a tensor, all of it where it is in shards, as an array; NumPy has no bfloat16, so it becomes float32."""
    found = whole(tensor.detach()).cpu()
    return (found.float() if found.dtype == torch.bfloat16 else found).numpy()
