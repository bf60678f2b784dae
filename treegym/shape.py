"""Does a JSON value have the shape it must have? Result folders and checkpoints may come from strangers."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["COUNT", "misfit"]

_LARGEST = 2**53  # integers beyond are not the same number in every JSON reader


def COUNT(value: Any) -> bool:
    """A shape: whole numbers from 0."""
    return type(value) is int and 0 <= value < _LARGEST


def misfit(value: Any, shape: Any) -> str | None:
    """Returns where a value departs from a shape, such as ``.final.score``, or None when it fits.

    A shape is a type; None; a function that says whether it fits; ``{key: shape}`` with "*" for all other keys;
    ``[shape of every entry]``; or a tuple of alternatives. Numbers are finite.
    """
    if isinstance(shape, tuple):
        if any(_is(value, kind) for kind in shape if not isinstance(kind, (dict, list))):
            return None
        inner = next((kind for kind in shape if isinstance(kind, type(value)) and isinstance(kind, (dict, list))), None)
        return misfit(value, inner) if inner is not None else ""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return ""
        for key in shape.keys() - {"*"} - value.keys():
            return f".{key}"
        others = shape.get("*")
        for key, entry in value.items():
            wanted = shape.get(key, others)
            if wanted is not None and (fault := misfit(entry, wanted)) is not None:
                return f".{key}{fault}"
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return ""
        if shape[0] in (int, float) and _are_numbers(value, shape[0]):
            return None  # the long lists, without a call for every entry
        for i, entry in enumerate(value):
            if (fault := misfit(entry, shape[0])) is not None:
                return f"[{i}]{fault}"
        return None
    return None if _is(value, shape) else ""


def _are_numbers(values: list[Any], kind: type) -> bool:
    allowed, bound = ({int}, _LARGEST) if kind is int else ({int, float}, 1e100)
    return set(map(type, values)) <= allowed and all(-bound < value < bound for value in values)


def _is(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind is int:
        return type(value) is int and abs(value) < _LARGEST
    if kind is float:
        return type(value) in (int, float) and abs(value) < 1e100 and math.isfinite(value)
    return isinstance(value, kind) if isinstance(kind, type) else bool(kind(value))
