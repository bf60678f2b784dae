"""Checks of settings: is it a whole number, a number, one of a few words, and within its range?

Each returns the value in its plain Python type, or raises `ConfigError` with one sentence: what came and what was
expected. True and False are numbers to Python, but nobody means them so; they are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from treegym.errors import ConfigError, suggest

__all__ = ["flag", "is_number", "is_whole", "number", "one_of", "whole"]


def is_whole(value: Any) -> bool:
    """Returns whether a value is a whole number, Python's or NumPy's."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite number, Python's or NumPy's."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return isinstance(value, int | np.integer) or math.isfinite(value)  # whole numbers beyond floats are finite


def whole(name: str, value: Any, *, low: int | None = None, high: int | None = None, unit: str = "") -> int:
    """Returns a whole number within bounds, both included."""
    if not is_whole(value) or not _within(value, low, high):
        raise ConfigError(f"{name} is {value!r}; it must be a whole number{_range(low, high)}{unit and ' ' + unit}")
    return int(value)


def number(name: str, value: Any, *, low: float | None = None, high: float | None = None, unit: str = "") -> float:
    """Returns a finite number within bounds, both included."""
    if not is_number(value) or not _within(value, low, high):
        raise ConfigError(f"{name} is {value!r}; it must be a number{_range(low, high)}{unit and ' ' + unit}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """Returns True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def one_of(name: str, value: Any, options: Iterable[str]) -> str:
    """Returns one of a few words."""
    known = list(options)
    if not isinstance(value, str) or value not in known:
        hint = suggest(value, known) if isinstance(value, str) else ""
        hint = hint if "Did you" in hint else ""
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(known)}.{hint}")
    return value


def _within(value: Any, low: float | None, high: float | None) -> bool:
    return bool((low is None or value >= low) and (high is None or value <= high))


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return "" if high is None else f" of at most {high}"
