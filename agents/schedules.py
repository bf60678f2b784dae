"""Values that change over training, written so that a checkpoint can hold them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from treegym.errors import ConfigError

__all__ = ["Schedule", "as_schedule"]

Schedule = float | str | Callable[[float], float]


def as_schedule(value: Schedule, *, name: str, signed: bool = False) -> Callable[[float], float]:
    """Returns a function of the progress *remaining* (1 at the start, 0 at the end), as in SB3.

    Args:
        value: a number; ``"lin_0.001"`` (falls to 0, RL Zoo's notation); ``"linear:0.1:0.01"`` (from, to); or such a
            function.
        name: what to call it in an error.
        signed: whether it may be negative.
    """
    if callable(value):
        return value
    if isinstance(value, str):
        try:
            if value.startswith("lin_"):
                start, end = float(value[4:]), 0.0
            else:
                word, first, second = value.split(":")
                if word != "linear":
                    raise ValueError(word)
                start, end = float(first), float(second)
        except ValueError:
            raise ConfigError(
                f"{name}={value!r} is not a schedule; expected a number, 'lin_0.001' or 'linear:0.1:0.01'"
            ) from None
        start, end = _checked(start, name, signed), _checked(end, name, signed)
        return lambda remaining: end + (start - end) * remaining
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        constant = _checked(float(value), name, signed)
        return lambda remaining: constant
    return _unknown(value, name)


def _checked(number: float, name: str, signed: bool) -> float:
    if not math.isfinite(number) or (number < 0 and not signed):
        raise ConfigError(f"{name} is {number}; it must be a finite number{'' if signed else ' from 0'}")
    return number


def _unknown(value: Any, name: str) -> Callable[[float], float]:
    raise ConfigError(f"{name}={value!r} is not a schedule; expected a number, 'lin_0.001' or 'linear:0.1:0.01'")
