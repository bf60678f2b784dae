"""Gymnasium spaces as JSON and back: the kinds that agents here can have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from treegym.errors import ConfigError, DataError
from treegym.shape import COUNT, misfit

__all__ = ["space_from_json", "space_to_json"]

LARGEST = 2**22  # numbers in all parts together: a hundred times a large observation
_DTYPES = ("float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """Returns a space as JSON values; infinite bounds are written as null."""
    if isinstance(space, spaces.Dict):
        return {"kind": "dict", "spaces": {key: space_to_json(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.Box):
        return {
            "kind": "box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": _bounds(space.low),
            "high": _bounds(space.high),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multibinary", "shape": list(space.shape)}
    raise ConfigError(f"a checkpoint cannot describe the space {space}")


def space_from_json(value: Any) -> spaces.Space:
    """Returns the space `space_to_json` wrote; one that is too large is refused before it is made."""
    if (size := _size(value)) > LARGEST:
        raise DataError(f"a space of {size:,} numbers is described, more than {LARGEST:,}; the checkpoint is damaged")
    return _made(value)


def _size(value: Any) -> int:
    """Returns how many numbers a described space has."""
    if not isinstance(value, dict):
        raise DataError(f"a space is described by {str(value)[:60]!r}; the checkpoint is damaged")
    if value.get("kind") == "dict":
        return sum(map(_size, value["spaces"].values()))
    shape = value.get("shape", [])
    if misfit(shape, [COUNT]) is not None or len(shape) > 8:
        raise DataError(f"the shape of a space is {str(shape)[:60]!r}; the checkpoint is damaged")
    return math.prod(shape)


def _made(value: dict[str, Any]) -> spaces.Space:
    kind = value.get("kind")
    if kind == "dict":
        return spaces.Dict({key: _made(part) for key, part in value["spaces"].items()})
    if kind == "discrete":
        return spaces.Discrete(int(value["n"]), start=int(value["start"]))
    if kind == "box" and value["dtype"] in _DTYPES:
        shape, dtype = tuple(value["shape"]), np.dtype(value["dtype"])
        low, high = _array(value["low"], shape, dtype, -np.inf), _array(value["high"], shape, dtype, np.inf)
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "multibinary":
        return spaces.MultiBinary(list(value["shape"]))
    raise DataError(f"a space of kind {kind!r} is unknown; the checkpoint is damaged or newer")


def _bounds(array: np.ndarray) -> list[list[float | int | None]]:
    """Returns bounds as runs ``[value, count]``: most repeat, and one number per entry would be long."""
    flat = array.ravel()
    if not len(flat):
        return []
    edges = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1], True])
    values = [None if isinstance(v, float) and not np.isfinite(v) else v for v in flat[edges[:-1]].tolist()]
    return [[value, int(count)] for value, count in zip(values, np.diff(edges), strict=True)]


def _array(runs: Any, shape: tuple[int, ...], dtype: np.dtype, missing: float) -> np.ndarray:
    values = [missing if value is None else value for value, _ in runs]
    counts = [count for _, count in runs]
    if misfit(counts, [COUNT]) is not None or sum(counts) != math.prod(shape):
        raise DataError("the bounds of a space do not fit its shape; the checkpoint is damaged")
    return np.repeat(np.array(values, dtype), counts).reshape(shape)
