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
    "hyperparameters": {},
    "reference": {"*": float},
    "provenance": {"versions": {"*": str}, "git": str, "hardware": {"*": (str, float)}},
}  # fmt: skip


def misfit(value: Any, shape: Any, where: str = "") -> str | None:
    """Returns where a value departs from a shape, or None when it fits."""
    if isinstance(shape, tuple):
        found = [misfit(value, alternative, where) for alternative in shape]
        return None if None in found else found[-1] if isinstance(value, dict) else where
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return where
        for key in shape.keys() - {"*"} - value.keys():
            return f"{where}.{key}"
        others = shape.get("*")
        checks = ((key, shape.get(key, others)) for key in value)
        faults = (misfit(value[key], wanted, f"{where}.{key}") for key, wanted in checks if wanted is not None)
        return next((fault for fault in faults if fault is not None), None)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return where
        faults = (misfit(entry, shape[0], f"{where}[{i}]") for i, entry in enumerate(value))
        return next((fault for fault in faults if fault is not None), None)
    return None if _is(value, shape) else where


def _is(value: Any, kind: type | None) -> bool:
    if kind is None:
        return value is None
    if kind is int:
        return type(value) is int and abs(value) < _LARGEST
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e100
    return isinstance(value, kind)
