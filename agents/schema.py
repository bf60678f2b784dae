"""What a checkpoint may hold: the shape of its JSON, and name, shape, type and range of each of its arrays.

Compiled kernels and fused optimizers trust the arrays they are given; so nothing gets to them that was not compared
with what it claims to be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from treegym.errors import DataError
from treegym.shape import COUNT, misfit

__all__ = ["DATA", "GENERATOR", "Expected", "at_most", "check_arrays", "check_json"]


def _seed(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**64)


def _window(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 2**20


def _bits(count: int) -> Any:
    return lambda value: type(value) is int and 0 <= value < 2**count


GENERATOR = {
    "bit_generator": lambda value: value == "PCG64",
    "state": {"state": _bits(128), "inc": _bits(128)},
    "has_uint32": _bits(1),
    "uinteger": _bits(32),
}
DATA = {
    "algorithm": str, "policy": str, "policy_kwargs": {}, "settings": {}, "functions": [str], "seed": _seed,
    "spaces": lambda value: isinstance(value, list) and len(value) == 2, "env": (None, {"id": str, "kwargs": {}}),
    "counters": dict.fromkeys(("num_timesteps", "total_timesteps", "episodes", "iteration", "updates"), COUNT),
    "log": {"episodes": [{"r": float, "l": float}], "successes": [float], "window": _window},
    "rng": GENERATOR, "state": {},
}  # fmt: skip


class Expected(NamedTuple):
    """What an array must be."""

    shape: tuple[int, ...]
    dtype: Any
    low: float = -np.inf  # least and greatest value, both included
    high: float = np.inf
    nan: bool = False  # whether NaN, and infinity where the range has it, mean something


def check_json(value: Any, shape: Any, where: str) -> None:
    """Raises DataError that names the first place where a JSON value departs from a shape."""
    if (fault := misfit(value, shape)) is not None:
        name = fault.lstrip(".")[:80]
        raise DataError(f"{where}: {name or 'its content'} is missing or not what it should be; the file is damaged")


def check_arrays(arrays: Mapping[str, np.ndarray], expected: Mapping[str, Expected], where: str) -> None:
    """Raises DataError unless there are exactly the arrays that are expected, each as it must be."""
    for name in expected.keys() ^ arrays.keys():
        raise DataError(f"{where}: the array {name[:80]!r} is {'missing' if name in expected else 'unknown'}")
    for name, wanted in expected.items():
        array = arrays[name]
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            raise DataError(
                f"{where}: the array {name!r} is {array.dtype} {array.shape}; "
                f"{np.dtype(wanted.dtype)} {wanted.shape} was expected"
            )
        if not _within(array, wanted):
            raise DataError(f"{where}: the array {name!r} holds NaN, infinity or a number outside of its range")


def _within(array: np.ndarray, wanted: Expected) -> bool:
    if array.dtype.kind not in "fiu" or not array.size:
        return True
    known = array[~np.isnan(array)] if wanted.nan and array.dtype.kind == "f" else array
    if not known.size:
        return True
    low, high = float(known.min()), float(known.max())  # NaN if there is one
    return wanted.low <= low and high <= wanted.high and (wanted.nan or (math.isfinite(low) and math.isfinite(high)))


@contextmanager
def at_most(elements: int, where: str) -> Iterator[None]:
    """Refuses to make tensors of more than so many elements together while the block runs, before they are made.

    A file may claim a network that is far larger than the weights it brings; its sizes are known only to the code
    that builds it.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    left = elements

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal left
            if func.overloadpacket.__name__ in _MAKES:
                left -= math.prod(next((arg for arg in args if isinstance(arg, list | tuple)), ()))
                if left < 0:
                    raise DataError(f"{where}: its network would be larger than the weights it holds; it is damaged")
            return func(*args, **(kwargs or {}))

    with Counted():
        yield


_MAKES = frozenset(
    f"{prefix}{name}" for name in ("empty", "empty_strided", "zeros", "ones", "full") for prefix in ("", "new_")
)
