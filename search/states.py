"""Keeping the simulator's states: arrays, tensors, lists of objects, or tuples and dicts of them, by row.

A form is kept as it came: who gives a list of texts is asked about lists of texts. What a state does not fit into is
made wider (longer texts, larger whole numbers), never cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError

__all__ = ["StateStore", "count", "differing", "joined", "names_of", "restore", "take"]


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
    if isinstance(states, list):
        return [states[row] for row in rows]
    return states[rows]


def joined(parts: list[Any]) -> Any:
    """Returns several lots of rows, of the same form, as one."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: joined([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple):
        columns = [joined([part[i] for part in parts]) for i in range(len(first))]
        return type(first)(*columns) if hasattr(first, "_fields") else tuple(columns)
    if isinstance(first, list):
        return [row for part in parts for row in part]
    if isinstance(first, np.ndarray):
        return np.concatenate(parts)
    whole = first.new_empty((sum(map(len, parts)), *first.shape[1:]))  # a tensor, without importing torch
    at = 0
    for part in parts:
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


_CLOSE = 1e-3  # relative: networks on a GPU do not round alike twice, chance differs by far more


def differing(first: Any, second: Any) -> np.ndarray:
    """Returns the rows in which two lots of states differ, int64; objects that cannot be compared count as equal."""
    if isinstance(first, dict) and isinstance(second, dict):
        parts = [differing(first[name], second[name]) for name in first if name in second]
    elif isinstance(first, tuple) and isinstance(second, tuple):
        parts = [differing(a, b) for a, b in zip(first, second, strict=False)]
    else:
        return _differing_rows(first, second)
    return np.unique(np.concatenate([np.zeros(0, np.int64), *parts]))


def _differing_rows(first: Any, second: Any) -> np.ndarray:
    if hasattr(first, "detach") and hasattr(second, "detach"):
        first, second = (part.detach().to("cpu").double().numpy() for part in (first, second))
    if isinstance(first, list) or getattr(first, "dtype", None) == np.dtype(object):
        pairs = enumerate(zip(first, second, strict=False))
        plain = (str, bytes, int, float, bool, type(None))
        return np.array(
            [i for i, (a, b) in pairs if isinstance(a, plain) and isinstance(b, plain) and a != b and a == a], np.int64
        )
    if not isinstance(first, np.ndarray) or not isinstance(second, np.ndarray) or first.shape != second.shape:
        return np.zeros(0, np.int64)
    if first.dtype.kind in "fc":
        same = np.isclose(first, second, rtol=_CLOSE, atol=_CLOSE, equal_nan=True)
    else:
        same = first == second
    return np.flatnonzero(~same.reshape(len(first), -1).all(1))


def names_of(states: Any) -> list[Any]:
    """Returns what tells states apart, row by row: equal for equal ones; objects of unknown kinds are all different."""
    if isinstance(states, (dict, tuple)):
        parts = states.values() if isinstance(states, dict) else states
        return list(zip(*map(names_of, parts), strict=True))
    if hasattr(states, "detach"):
        states = states.detach().to("cpu").double().numpy()
    if isinstance(states, np.ndarray) and not states.dtype.hasobject:
        return states.tolist() if states.ndim == 1 else [row.tobytes() for row in states]
    return [state if isinstance(state, (str, bytes, int, float)) else id(state) for state in states]


class StateStore:
    """Rows of states under numbers: room for `capacity` rows of the same form as `like`."""

    def __init__(self, like: Any, capacity: int) -> None:
        """Makes room; raises `ConfigError` for states of a form that cannot be kept."""
        self.data = _room(like, capacity)

    def put(self, rows: np.ndarray, states: Any) -> None:
        """Keeps `states` under the numbers `rows`."""
        self.data = _put(self.data, rows, states)

    def get(self, rows: np.ndarray) -> Any:
        """Returns the states kept under the numbers `rows`."""
        return take(self.data, rows)

    def arrays(self, prefix: str = "state") -> dict[str, np.ndarray]:
        """Returns the kept arrays under flat names, for saving."""
        flat = dict(_flat(self.data, prefix))
        for name, array in flat.items():
            if array.dtype.kind in "OUS" or name.count(".") > 1:
                raise ConfigError(
                    "states of this form cannot be saved; keep them as arrays of numbers, or one tuple or dict of them"
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
    if isinstance(like, list):
        return [None] * capacity
    if isinstance(like, np.ndarray):
        return np.zeros((capacity, *like.shape[1:]), like.dtype)
    if hasattr(like, "new_empty"):  # a torch tensor, without importing torch
        return like.new_empty((capacity, *like.shape[1:]))
    raise ConfigError(
        f"states are {type(like).__name__}; search keeps arrays, tensors, lists, or tuples and dicts of them"
    )


def _put(data: Any, rows: np.ndarray, states: Any) -> Any:
    """Writes states under their numbers; returns where they are kept, which is elsewhere if they had to be wider."""
    if isinstance(data, dict):
        if not isinstance(states, dict) or states.keys() != data.keys():
            raise ConfigError(f"the simulator's states have the keys {_keys(states)}; the roots {sorted(data)}")
        return {name: _put(part, rows, states[name]) for name, part in data.items()}
    if isinstance(data, tuple):
        if not isinstance(states, tuple) or len(states) != len(data):
            raise ConfigError(f"the simulator's states are {_form(states)}; the roots are a tuple of {len(data)}")
        parts = [_put(part, rows, new) for part, new in zip(data, states, strict=True)]
        return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)
    if isinstance(data, list):
        if len(states) != len(rows):
            raise ConfigError(f"the simulator's states are {len(states)}; expected {len(rows)}")
        for row, state in zip(rows, states, strict=True):
            data[row] = state
        return data
    if isinstance(states, list) and isinstance(data, np.ndarray):
        states = np.array([*states, None], object)[:-1] if data.dtype.hasobject else np.asarray(states)
    if hasattr(states, "shape") and tuple(states.shape) != (len(rows), *data.shape[1:]):
        raise ConfigError(
            f"the simulator's states have shape {tuple(states.shape)}; expected {(len(rows), *data.shape[1:])}"
        )
    if isinstance(data, np.ndarray):
        data = _wide_enough(data, np.asarray(states).dtype)
    elif hasattr(states, "detach"):  # a tensor: its history is not kept with it
        states = states.detach()
        data = _wide_enough_tensor(data, states)
    data[rows] = states
    return data


def _wide_enough_tensor(data: Any, states: Any) -> Any:
    """Returns the tensor, or a wider one, in which `states` lose nothing; raises `ConfigError` for others."""
    wide = (data[:0] + states[:0].to(data.device)).dtype if states.dtype != data.dtype else data.dtype
    if wide.is_floating_point != data.dtype.is_floating_point:
        raise ConfigError(f"the simulator's states became {states.dtype}; the roots are {data.dtype}")
    return data.to(wide)


def _wide_enough(data: np.ndarray, new: np.dtype) -> np.ndarray:
    """Returns the array, or a wider one, in which states of dtype `new` lose nothing; else raises `ConfigError`."""
    old = data.dtype
    if new == old or np.can_cast(new, old, "safe"):
        return data
    wide = np.result_type(old, new)
    if old.kind in "biu" and new.kind in "biu":
        if wide.kind in "biu":  # not uint64 and int64, which meet as float64
            return data.astype(wide)
    elif old.kind == new.kind and wide.kind == old.kind:
        return data.astype(wide)
    raise ConfigError(f"the simulator's states became {new}; the roots are {old}")


def _keys(states: Any) -> Any:
    return sorted(states) if isinstance(states, dict) else f"of {_form(states)}: none"


def _form(states: Any) -> str:
    return f"a tuple of {len(states)}" if isinstance(states, tuple) else type(states).__name__


def _flat(data: Any, prefix: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(data, dict):
        return [pair for name, part in data.items() for pair in _flat(part, f"{prefix}.{name}")]
    if isinstance(data, tuple):
        return [pair for i, part in enumerate(data) for pair in _flat(part, f"{prefix}.{i}")]
    return [(prefix, np.array([*data, None], object)[:-1] if isinstance(data, list) else np.asarray(data))]
