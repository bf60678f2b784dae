"""A recorded table as observations show it: a row for every module, and two for every candidate (unmeasured, measured).

What is known of a strategy before anything is measured is how it did, alone, on training modules of the same kind, and
never on the module that is judged: the features of a module do not hold its own results. Where a kind has no history
all kinds are taken; where a strategy has none, its published gains.
Letters: M modules, N records, S strategies, F features.
"""

from __future__ import annotations

import numpy as np

from treegym.optimize.fitness import scores
from treegym.optimize.strategies import STRATEGIES
from treegym.optimize.table import SelectionTable

__all__ = [
    "GAIN_SCALE", "PRIOR_LIMIT", "PRIOR_SCALE", "child_names", "expected_scores", "module_rows", "record_rows",
    "strategy_logs",
]  # fmt: skip

GAIN_SCALE = 5.0  # gains in fitness are shown times this: 0.1 is a large one
PRIOR_SCALE = 50.0  # and as logits of a prior over candidates times this: a gain of 0.02 more is e times as likely
PRIOR_LIMIT = 30.0
_FLOOR = 1e-3  # accuracies are logged from here
_HISTORY_FULL = 4.0  # modules of history that count as much history


def strategy_logs(table: SelectionTable) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for every module, the mean log of each strategy's metrics ``[M, S, 3]`` and how many it rests on."""
    count_modules, count_strategies = len(table.modules), len(table.strategies)
    logs = np.log(np.maximum(table.metrics, _FLOOR))
    kinds = np.array([module.kind for module in table.modules])
    training = np.array([module.split == "train" for module in table.modules])
    single = table.contains.sum(1) == 1
    strategy = np.where(single, table.contains.argmax(1), -1)
    nominal = np.log([STRATEGIES[name].nominal for name in table.strategies])
    means = np.repeat(nominal[None], count_modules, axis=0)  # [M, S, 3]
    counts = np.zeros((count_modules, count_strategies), np.int64)
    for m in range(count_modules):
        others = single & training[table.module] & (table.module != m)
        for s in range(count_strategies):
            there = others & (strategy == s)
            alike = there & (kinds[table.module] == kinds[m])
            chosen = alike if alike.any() else there
            if chosen.any():
                means[m, s] = logs[chosen].mean(0)
                counts[m, s] = alike.sum()
    return means, counts


def expected_scores(table: SelectionTable) -> tuple[np.ndarray, np.ndarray]:
    """Returns the expected scores of every record ``[N, 3]`` and how many modules of its kind they rest on ``[N]``."""
    means, counts = strategy_logs(table)
    logs = (means[table.module] * table.contains[:, :, None]).sum(1)  # strategies multiply
    known = (counts[table.module] * table.contains).sum(1) / np.maximum(table.contains.sum(1), 1)
    values = np.exp(logs)
    return scores(values[:, 0], values[:, 1], values[:, 2]), known


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
