"""Keeping the simulator's states: arrays, tensors, or tuples and dicts of them, by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError

__all__ = ["StateStore", "count", "restore", "take"]


def count(states: Any) -> int:
    """Returns the number of rows."""
    if isinstance(states, dict):
        return count(next(iter(states.values())))
    if isinstance(states, tuple):
        return count(states[0])
    return len(states)


def take(states: Any, rows: np.ndarray) -> Any:
    """Returns the named rows."""
    if isinstance(states, dict):
        return {name: take(part, rows) for name, part in states.items()}
    if isinstance(states, tuple):
        parts = [take(part, rows) for part in states]
        return type(states)(*parts) if hasattr(states, "_fields") else tuple(parts)
    return states[rows]


class StateStore:
    """Rows of states under numbers: room for `capacity` rows of the same form as `like`."""

    def __init__(self, like: Any, capacity: int) -> None:
        """Makes room; raises `ConfigError` for states of a form that cannot be kept."""
        self.data = _room(like, capacity)

    def put(self, rows: np.ndarray, states: Any) -> None:
        """Keeps `states` under the numbers `rows`."""
        _put(self.data, rows, states)

    def get(self, rows: np.ndarray) -> Any:
        """Returns the states kept under the numbers `rows`."""
        return take(self.data, rows)

    def arrays(self, prefix: str = "state") -> dict[str, np.ndarray]:
        """Returns the kept arrays under flat names, for saving."""
        flat = dict(_flat(self.data, prefix))
        for name, array in flat.items():
            if array.dtype.hasobject or name.count(".") > 1:
                raise ConfigError(
                    "states of this form cannot be saved; keep them as arrays, or one tuple or dict of them"
                )
        return flat


def restore(arrays: dict[str, np.ndarray], capacity: int, prefix: str = "state") -> StateStore:
    """Returns the store that `StateStore.arrays` gave (a plain array, or a dict or tuple of them)."""
    store = StateStore.__new__(StateStore)
    names = {name: array for name, array in arrays.items() if name == prefix or name.startswith(prefix + ".")}
    if not names or any(not array.size or len(array) != capacity for array in names.values()):
        raise ValueError("its states do not fit its trees")
    parts = {name[len(prefix) + 1 :]: array for name, array in names.items()}
    if prefix in names:
        store.data = names[prefix].copy()
    elif all(name.isdigit() for name in parts):
        store.data = tuple(parts[name].copy() for name in sorted(parts, key=int))
    elif not any("." in name for name in parts):
        store.data = {name: array.copy() for name, array in parts.items()}
    else:
        raise ValueError("its states are nested deeper than a saved search can hold")
    return store


def _room(like: Any, capacity: int) -> Any:
    if isinstance(like, dict):
        return {name: _room(part, capacity) for name, part in like.items()}
    if isinstance(like, tuple):
        parts = [_room(part, capacity) for part in like]
        return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)
    if isinstance(like, np.ndarray):
        return np.zeros((capacity, *like.shape[1:]), like.dtype)
    if hasattr(like, "new_empty"):  # a torch tensor, without importing torch
        return like.new_empty((capacity, *like.shape[1:]))
    raise ConfigError(f"states are {type(like).__name__}; search keeps arrays, tensors, or tuples and dicts of them")


def _put(data: Any, rows: np.ndarray, states: Any) -> None:
    if isinstance(data, dict):
        if states.keys() != data.keys():
            raise ConfigError(f"the simulator's states have the keys {sorted(states)}; the roots {sorted(data)}")
        for name, part in data.items():
            _put(part, rows, states[name])
    elif isinstance(data, tuple):
        if len(states) != len(data):
            raise ConfigError(f"the simulator's states are tuples of {len(states)}; the roots are of {len(data)}")
        for part, new in zip(data, states, strict=True):
            _put(part, rows, new)
    else:
        if hasattr(states, "shape") and tuple(states.shape) != (len(rows), *data.shape[1:]):
            raise ConfigError(
                f"the simulator's states have shape {tuple(states.shape)}; expected {(len(rows), *data.shape[1:])}"
            )
        if isinstance(data, np.ndarray) and not np.can_cast(np.asarray(states).dtype, data.dtype, "same_kind"):
            raise ConfigError(f"the simulator's states became {np.asarray(states).dtype}; the roots are {data.dtype}")
        data[rows] = states


def _flat(data: Any, prefix: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(data, dict):
        return [pair for name, part in data.items() for pair in _flat(part, f"{prefix}.{name}")]
    if isinstance(data, tuple):
        return [pair for i, part in enumerate(data) for pair in _flat(part, f"{prefix}.{i}")]
    return [(prefix, np.asarray(data))]
