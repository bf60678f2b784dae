"""What is known of strategies before anything is measured: how each did, alone, on modules of the same kind.

Only training modules are looked at, and never the module that is judged: the features of a module do not hold its own
results. Where a kind has no history all kinds are taken; where a strategy has none, its published gains.
Letters: M modules, N records, S strategies.
"""

from __future__ import annotations

import numpy as np

from treegym.optimize.fitness import scores
from treegym.optimize.strategies import STRATEGIES
from treegym.optimize.table import SelectionTable

__all__ = ["expected_logs", "expected_scores", "strategy_logs"]

_FLOOR = 1e-3  # accuracies are logged from here


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


def expected_logs(table: SelectionTable) -> tuple[np.ndarray, np.ndarray]:
    """Returns the expected log metrics of every record ``[N, 3]`` (strategies multiply), its mean history ``[N]``."""
    means, counts = strategy_logs(table)
    own = means[table.module] * table.contains[:, :, None]
    size = np.maximum(table.contains.sum(1), 1)
    return own.sum(1), (counts[table.module] * table.contains).sum(1) / size


def expected_scores(table: SelectionTable) -> tuple[np.ndarray, np.ndarray]:
    """Returns the expected scores of every record ``[N, 3]`` and how many modules of its kind they rest on ``[N]``."""
    logs, known = expected_logs(table)
    values = np.exp(logs)
    return scores(values[:, 0], values[:, 1], values[:, 2]), known
