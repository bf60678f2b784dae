"""How each strategy has done on each kind of module so far, kept as JSON on disk.

Starts from the recorded table's training modules and learns from every measurement after that: the newest hundred
results of a kind and strategy count, in logs of speed and memory ratio and of accuracy.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import DataError
from treegym.files import atomic_write
from treegym.optimize.candidates import Candidate
from treegym.optimize.fitness import fitness, scores
from treegym.optimize.measurement import Measurement
from treegym.optimize.strategies import STRATEGIES
from treegym.optimize.table import SelectionTable, load_table
from treegym.shape import COUNT, misfit
from treegym.untrusted import read_json

__all__ = ["StrategyTracker", "default_path"]

FORMAT = 1
KEPT = 100  # newest results of a strategy on a kind
FLOOR = 1e-3
LARGEST = 50.0  # of a logarithm: gains of e^50 are nobody's
DOUBT = 2  # measurements that a strategy is believed to have come through before any was made
Row = tuple[float, float, float]  # logs of speed ratio, memory ratio, accuracy


def default_path() -> Path:
    """Returns where the history is kept: the user's state directory."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "treegym" / "strategy_history.json"


class StrategyTracker:
    """Expected gains of strategies by kind of module; `update` learns, `save` keeps."""

    def __init__(self, path: str | Path | None = None, *, table: SelectionTable | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.recorded = _recorded(load_table() if table is None else table)
        self.results: dict[str, dict[str, list[Row]]] = {}
        self.failures: dict[str, dict[str, int]] = {}
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def expected(self, kind: str, candidate: Candidate) -> np.ndarray:
        """Returns expected speed ratio, memory ratio and accuracy ``[3] float64``: strategies multiply."""
        logs = [self.strategy(kind, name) for name in candidate.strategies]
        return np.exp(np.sum(logs, axis=0)) if logs else np.ones(3)

    def strategy(self, kind: str, name: str) -> np.ndarray:
        """Returns the mean logs of one strategy ``[3]``: of this kind, else of all kinds, else its published gains."""
        own = self.results.get(kind, {}).get(name, []) + self.recorded.get(kind, {}).get(name, [])
        rows = own or [
            row for kinds in (self.results, self.recorded) for by in kinds.values() for row in by.get(name, [])
        ]
        if rows:
            return np.mean(np.asarray(rows), axis=0)
        return np.log(np.asarray(STRATEGIES[name].nominal))

    def expected_fitness(self, kind: str, candidate: Candidate, weights: np.ndarray) -> float:
        """Returns the fitness that is expected of a candidate."""
        return float(fitness(scores(*self.expected(kind, candidate)), weights))

    def update(self, kind: str, candidate: Candidate, measurement: Measurement | None) -> None:
        """Learns from one measurement; an ensemble's surprise is shared evenly among its strategies."""
        if measurement is None:
            counts = self.failures.setdefault(kind, {})
            for name in candidate.strategies:
                counts[name] = counts.get(name, 0) + 1
            return
        values = [measurement.speed.value, measurement.memory.value, measurement.accuracy.value]
        logs = np.log(np.maximum(values, FLOOR))
        parts = [self.strategy(kind, name) for name in candidate.strategies]
        if not parts:
            return
        surprise = (logs - np.sum(parts, axis=0)) / len(parts)
        for name, part in zip(candidate.strategies, parts, strict=True):
            rows = self.results.setdefault(kind, {}).setdefault(name, [])
            speed, memory, accuracy = (part + surprise).tolist()
            rows.append((speed, memory, accuracy))
            del rows[:-KEPT]

    def success_rates(self, kind: str, weights: np.ndarray) -> dict[str, float]:
        """Returns the share of each strategy's live results that beat the original."""
        base = float(fitness(scores(1.0, 1.0, 1.0), weights))
        rates = {}
        for name, rows in self.results.get(kind, {}).items():
            values = np.exp(np.asarray(rows))
            good = fitness(scores(values[:, 0], values[:, 1], values[:, 2]), weights) > base
            rates[name] = float(good.sum() / (len(rows) + self.failures.get(kind, {}).get(name, 0)))
        return rates

    def dynamic_weights(self, kind: str, names: list[str], weights: np.ndarray) -> dict[str, float]:
        """Returns a weight for each strategy, summing to 1.

        A softmax of the fitness it is expected to reach, times the share of its measurements that came to an end.
        """
        if not names:
            return {}
        gains = np.array([self.expected_fitness(kind, Candidate((name,)), weights) for name in names])
        done = np.array([len(self.results.get(kind, {}).get(name, [])) + DOUBT for name in names])
        failed = np.array([self.failures.get(kind, {}).get(name, 0) for name in names])
        shares = np.exp((gains - gains.max()) / 0.02) * done / (done + failed)
        return dict(zip(names, (shares / shares.sum()).tolist(), strict=True))

    def save(self) -> None:
        """Writes what was learned live; the recorded part comes with the package."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = {"format": FORMAT, "results": self.results, "failures": self.failures}
        atomic_write(self.path, json.dumps(data))

    def _load(self, path: Path) -> None:
        hint = "delete it to start anew, or give another history_path"
        try:
            data = read_json(path)
        except DataError as error:
            raise DataError(f"{path}: the strategy history cannot be read ({error}); {hint}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise DataError(f"{path}: not a strategy history of format {FORMAT}; {hint}")
        try:
            self.results = {
                kind: {name: [_row(row) for row in rows] for name, rows in by.items() if name in STRATEGIES and rows}
                for kind, by in data["results"].items()
            }
            self.failures = {kind: dict(by) for kind, by in data["failures"].items()}
            if misfit(self.failures, {"*": {"*": COUNT}}) is not None:
                raise ValueError("a number of failures is not a whole number from 0")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"{path}: the strategy history is damaged ({error}); {hint}") from error


def _row(values: Any) -> Row:
    speed, memory, accuracy = (float(value) for value in values)
    if not all(abs(value) <= LARGEST for value in (speed, memory, accuracy)):  # NaN is not either
        raise ValueError(f"a logarithm is beyond {LARGEST:g}")
    return speed, memory, accuracy


def _recorded(table: SelectionTable) -> dict[str, dict[str, list[Row]]]:
    """Returns the results of single strategies on the recorded training modules, by kind."""
    found: dict[str, dict[str, list[Row]]] = {}
    for record in np.flatnonzero(table.contains.sum(1) == 1):
        module = table.modules[table.module[record]]
        if module.split == "train":
            name = table.strategies[int(table.contains[record].argmax())]
            row = np.log(np.maximum(table.metrics[record], FLOOR)).tolist()
            found.setdefault(module.kind, {}).setdefault(name, []).append((row[0], row[1], row[2]))
    return found
