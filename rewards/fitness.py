"""Fitness of an optimised model: speed, memory and accuracy against the unoptimised one, as one number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from treegym.errors import ConfigError, suggest

__all__ = ["FITNESS_WEIGHTS", "fitness", "improvement"]

FITNESS_WEIGHTS = {"speed": 0.4, "memory": 0.3, "accuracy": 0.3}


def improvement(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns log2(before / after) of a cost: 1 is twice as good, -1 twice as bad, 0 no change.

    The logarithm makes gains and losses of equal ratio equal, and gains of successive steps add up.
    """
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if not (np.isfinite(before).all() and np.isfinite(after).all() and (before > 0).all() and (after > 0).all()):
        raise ConfigError("costs before and after must be finite numbers above 0")
    return np.log2(before / after)


def fitness(
    *,
    speed: np.ndarray,
    memory: np.ndarray,
    accuracy: np.ndarray,
    weights: Mapping[str, float] | None = None,
    accuracy_floor: float = 0.99,
) -> np.ndarray:
    """Returns w_speed s + w_memory m + w_accuracy a - 10 max(0, floor - accuracy), elementwise, float64.

    Args:
        speed: log2 of the speed-up (`improvement` of times).
        memory: log2 of the saving (`improvement` of bytes).
        accuracy: agreement with the original, 1 is unchanged; ``a = accuracy - 1``, so that no change is worth 0.
        weights: by default speed 0.4, memory 0.3, accuracy 0.3.
        accuracy_floor: below it every hundredth lost costs a tenth: a fast wrong model is no improvement.
    """
    share = dict(FITNESS_WEIGHTS if weights is None else weights)
    for name, value in share.items():
        if name not in FITNESS_WEIGHTS:
            raise ConfigError(f"fitness has no part called {name!r}.{suggest(name, FITNESS_WEIGHTS)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value) or value < 0:
            raise ConfigError(f"the weight of {name} in the fitness is {value!r}; a number of at least 0 was expected")
    kept = np.asarray(accuracy, dtype=np.float64)
    total = share.get("speed", 0.0) * np.asarray(speed, dtype=np.float64)
    total = total + share.get("memory", 0.0) * np.asarray(memory, dtype=np.float64)
    total = total + share.get("accuracy", 0.0) * (kept - 1.0)
    return total - 10.0 * np.maximum(0.0, accuracy_floor - kept)
