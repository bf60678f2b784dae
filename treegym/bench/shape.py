"""Does a JSON value have the shape it must have? Result folders may come from strangers."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["SUMMARY", "misfit"]

_LARGEST = 2**53  # integers beyond are not the same number in every JSON reader
_NUMBER, _COUNT = (float, None), (int, None)  # where a value may be unknown

# A type; None; {key: shape} with "*" for all other keys; [shape of every entry]; a tuple of alternatives.
SUMMARY: Any = {
    "format": int, "fingerprint": str, "env": str, "agent": str, "seed": int,
    "cost": {"*": (float, None, {"*": _NUMBER})},
    "curve": [{"checkpoint": int, "score": float, "*": _NUMBER}],
    "final": {
        "score": float, "prompts": [int], "scores": [float],
        "kinds": {"*": {"score": float, "episodes": int, "*": _NUMBER}},
        "*": _NUMBER,
    },
    "episodes": {"sha256": str, "count": int},
    "training": (None, {"sha256": str, "count": int, "env_steps": int}),
    "failed_rewards": (None, {"training": int, "evaluation": int}),
    "hyperparameters": {},
    "reference": {"*": float},
    "provenance": {"versions": {"*": str}, "git": str, "hardware": {"*": (str, float)}},
}  # fmt: skip


def misfit(value: Any, shape: Any) -> str | None:
    """Returns where a value departs from a shape, such as ``.final.score``, or None when it fits."""
    if isinstance(shape, tuple):
        if any(_is(value, kind) for kind in shape if not isinstance(kind, (dict, list))):
            return None
        inner = next((kind for kind in shape if isinstance(kind, dict)), None)
        return misfit(value, inner) if inner is not None and isinstance(value, dict) else ""
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


def _is(value: Any, kind: type | None) -> bool:
    if kind is None:
        return value is None
    if kind is int:
        return type(value) is int and abs(value) < _LARGEST
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e100
    return isinstance(value, kind)
