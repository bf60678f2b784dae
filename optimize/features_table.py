"""The recorded table as features: a row for every module, and two for every candidate (unmeasured, measured).

Letters: M modules, N records, S strategies, F features.
"""

from __future__ import annotations

import numpy as np

from treegym.optimize.history import expected_scores
from treegym.optimize.strategies import STRATEGIES
from treegym.optimize.table import SelectionTable

__all__ = ["GAIN_SCALE", "PRIOR_LIMIT", "PRIOR_SCALE", "child_names", "module_rows", "record_rows"]

GAIN_SCALE = 5.0  # gains in fitness are shown times this: 0.1 is a large one
PRIOR_SCALE = 50.0  # and as logits of a prior over candidates times this: a gain of 0.02 more is e times as likely
PRIOR_LIMIT = 30.0
_HISTORY_FULL = 4.0  # modules of history that count as much history


def module_rows(table: SelectionTable) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names and values ``[M, S0] float32`` of the modules' features, standardised on training modules."""
    names = tuple(table.modules[0].features)
    values = np.array([[module.features[name] for name in names] for module in table.modules])
    training = np.array([module.split == "train" for module in table.modules])
    known = values[training] if training.any() else values
    spread = np.maximum(known.std(0), 1e-3)
    return names, np.clip((values - known.mean(0)) / spread, -4.0, 4.0).astype(np.float32)


def child_names(strategies: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of a candidate's features."""
    contains = tuple(f"contains:{name}" for name in strategies)
    nominal = ("nominal:speed", "nominal:memory", "nominal:accuracy")
    history = ("history:speed", "history:memory", "history:accuracy", "history:known", "prior")
    measured = ("is_measured", "speed", "memory", "accuracy", "gain", "is_best")
    return (*contains, "length", "is_original", *nominal, *history, *measured)


def record_rows(
    table: SelectionTable, score: np.ndarray, gain: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns names, rows ``[2, N, F]``, the original's row ``[F]``, and the features' lower and upper bounds ``[F]``.

    Scores are shown from -1 to 1, with 0 for the original's ratio of 1 (for accuracy: from -1 for no accuracy to 0).
    """
    names = child_names(table.strategies)
    at = {name: i for i, name in enumerate(names)}
    rows = np.zeros((2, table.size, len(names)), np.float32)
    rows[:, :, : len(table.strategies)] = table.contains
    rows[:, :, at["length"]] = table.contains.sum(1) / 4.0
    nominal = np.log([STRATEGIES[name].nominal for name in table.strategies])
    rows[:, :, at["nominal:speed"] : at["nominal:accuracy"] + 1] = np.clip(table.contains @ nominal, -4.0, 4.0)
    expected, known = expected_scores(table)
    base = np.array([0.5, 0.5, 1.0])
    shown = np.array([2.0, 2.0, 1.0])
    rows[:, :, at["history:speed"] : at["history:accuracy"] + 1] = (expected - base) * shown
    rows[:, :, at["history:known"]] = np.minimum(known / _HISTORY_FULL, 1.0)
    weights = np.array([0.4, 0.3, 0.3])
    rows[:, :, at["prior"]] = np.clip(PRIOR_SCALE * (expected - base) @ weights, -PRIOR_LIMIT, PRIOR_LIMIT)
    rows[1, :, at["is_measured"]] = 1.0
    rows[1, :, at["speed"] : at["accuracy"] + 1] = (score - base) * shown
    rows[1, :, at["gain"]] = GAIN_SCALE * gain
    original = np.zeros(len(names), np.float32)
    original[at["is_original"]] = original[at["is_measured"]] = 1.0
    low = np.full(len(names), -1.0, np.float32)
    high = np.full(len(names), 1.0, np.float32)
    low[: len(table.strategies) + 2] = 0.0
    high[at["length"]] = 8.0
    low[at["nominal:speed"] : at["nominal:accuracy"] + 1] = -4.0
    high[at["nominal:speed"] : at["nominal:accuracy"] + 1] = 4.0
    for name, limit in (("prior", PRIOR_LIMIT), ("gain", GAIN_SCALE)):
        low[at[name]], high[at[name]] = -limit, limit
    return names, rows, original, low, high
