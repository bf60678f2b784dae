"""Checks of what a simulator gives, before any kernel reads it."""

from __future__ import annotations

import numpy as np

from treegym.errors import ConfigError
from treegym.search.base import Evaluation

__all__ = ["PROBLEMS", "check_evaluation"]

# What is wrong with a row, by the codes of the kernel `fill_dense`.
PROBLEMS = {
    1: "has no legal action",
    2: "has a prior logit that is NaN or +inf",
    3: "has prior logits of -inf for all its legal actions",
    4: "has a reward or value that is not finite",
}


def check_evaluation(evaluation: Evaluation, rows: int, actions: int, what: str) -> Evaluation:
    """Returns the evaluation as contiguous arrays, or raises `ConfigError` naming the array and the row at fault."""
    logits = np.ascontiguousarray(evaluation.prior_logits, np.float32)
    value = np.ascontiguousarray(evaluation.value, np.float32)
    legal = np.ascontiguousarray(evaluation.legal, np.bool_)
    for name, array, shape in (
        ("prior_logits", logits, (rows, actions)),
        ("value", value, (rows,)),
        ("legal", legal, (rows, actions)),
    ):
        if array.shape != shape:
            raise ConfigError(f"{what}: the simulator's {name} has shape {array.shape}; expected {shape}")
    if not np.isfinite(value).all():
        row = int(np.flatnonzero(~np.isfinite(value))[0])
        raise ConfigError(f"{what}: the simulator's value of row {row} is {value[row]}; it must be finite")
    return Evaluation(logits, value, legal)
