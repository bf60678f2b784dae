"""A ring buffer of positions: what was seen, what search said, how it ended."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from treegym.agents.schema import Expected, check_arrays
from treegym.errors import DataError

__all__ = ["ReplayBuffer"]


class ReplayBuffer:
    """Keeps the last `capacity` positions as flat arrays, so that a checkpoint can hold them.

    Args:
        capacity: C, positions kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.arrays: dict[str, np.ndarray] = {}  # each [C, ...]
        self.size = 0
        self.next = 0

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Adds positions, each array ``[n, ...]``; the oldest give way."""
        count = len(next(iter(rows.values())))
        if not self.arrays:
            self.arrays = {k: np.zeros((self.capacity, *a.shape[1:]), a.dtype) for k, a in rows.items()}
        skip = max(0, count - self.capacity)
        slots = (self.next + np.arange(count - skip)) % self.capacity
        for key, array in rows.items():
            self.arrays[key][slots] = array[skip:]
        self.next = int((self.next + count - skip) % self.capacity)
        self.size = min(self.capacity, self.size + count - skip)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns the slots of `count` positions drawn uniformly ``[count] int64``."""
        return rng.integers(self.size, size=count)

    def rows(self, slots: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the positions in some slots."""
        return {key: array[slots] for key, array in self.arrays.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Returns everything kept, for a checkpoint."""
        return {f"row.{k}": a[: self.size] for k, a in self.arrays.items()} | {
            "at": np.array([self.size, self.next, self.capacity], np.int64)
        }

    def set_state(self, arrays: Mapping[str, np.ndarray], rows: Mapping[str, Expected], where: str = "replay") -> None:
        """Takes back what `state` returned; DataError unless every kept array is, per position, as `rows` says."""
        check_arrays({"at": arrays.get("at", np.zeros(0))}, {"at": Expected((3,), np.int64, 0)}, where)
        size, place, capacity = (int(v) for v in arrays["at"])
        if capacity != self.capacity or size > capacity or place >= capacity:
            raise DataError(f"{where}: {size} of {capacity} positions, the next at {place}; {self.capacity} were made")
        kept = {name[4:]: array for name, array in arrays.items() if name.startswith("row.")}
        named = {f"row.{name}": wanted for name, wanted in rows.items() if kept or name in kept}
        check_arrays(
            {name: array for name, array in arrays.items() if name != "at"},
            {name: wanted._replace(shape=(size, *wanted.shape)) for name, wanted in named.items()},
            where,
        )
        self.size, self.next = size, place
        self.arrays = {}
        for key, array in kept.items():
            whole = np.zeros((capacity, *array.shape[1:]), array.dtype)
            whole[:size] = array
            self.arrays[key] = whole
