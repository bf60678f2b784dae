"""The units that a world pays in: how large returns are there, and how far apart siblings.

Rewards of a world may be hundredths or hundreds. A critic learns either as well, and a search trusts it as much, if
both are told the unit. Letters: N positions, K children.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from treegym.agents.schema import Expected, check_arrays

__all__ = ["Units"]

_LEAST = 0.1  # of either: where next to nothing was paid so far, noise is no unit
_NEWER = 0.1  # weight of the newest positions in the spread


class Units:
    """Running estimates.

    Attributes:
        value: the root mean square of what the critic learns from.
        apart: the root mean square of the difference between the best and the worst visited child.
        error: the root mean square of what the critic is off by.
    """

    def __init__(self) -> None:
        self.value, self.apart, self.error = 1.0, 1.0, 0.0
        self._seen = False

    @property
    def spread(self) -> float:
        """What a difference between siblings is measured by: one that the critic's error explains is hardly news."""
        return math.hypot(self.apart, self.error)

    def note_values(self, targets: np.ndarray) -> None:
        """Takes in all that there is to learn from, ``[N] float32``."""
        self.value = max(_LEAST, float(np.sqrt(np.mean(targets.astype(np.float64) ** 2))))

    def note_error(self, squared: float) -> None:
        """Takes in the mean squared error of the critic in the last update."""
        self.error = math.sqrt((1.0 - _NEWER) * self.error**2 + _NEWER * squared)

    def note_siblings(self, q: np.ndarray) -> None:
        """Takes in what searches found, ``[N, K] float32``, NaN where unvisited."""
        several = (~np.isnan(q)).sum(1) > 1
        if not several.any():
            return
        apart = np.nanmax(q[several], 1) - np.nanmin(q[several], 1)
        newest = max(_LEAST * _LEAST, float(np.mean(apart.astype(np.float64) ** 2)))
        weight = _NEWER if self._seen else 1.0
        self.apart = math.sqrt((1.0 - weight) * self.apart**2 + weight * newest)
        self._seen = True

    def state(self) -> dict[str, np.ndarray]:
        """Returns all of them, for a checkpoint."""
        return {"units": np.array([self.value, self.apart, self.error, self._seen], np.float64)}

    def set_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `state` returned; what older checkpoints lack stays as it begins."""
        if not arrays:
            return
        check_arrays(arrays, {"units": Expected((4,), np.float64, 0.0)}, "units")
        value, apart, self.error, seen = (float(number) for number in arrays["units"])
        self.value, self.apart, self._seen = max(_LEAST, value), max(_LEAST, apart), bool(seen)
