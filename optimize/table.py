"""The recorded table: every measured candidate of every zoo module, as flat arrays.

Letters: M modules, N records (candidates of all modules), S strategies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import DataError
from treegym.optimize.strategies import STRATEGIES
from treegym.untrusted import read_json

__all__ = ["BUNDLED", "SPLITS", "ModuleEntry", "SelectionTable", "load_table"]

BUNDLED = Path(__file__).parent / "data" / "selection.json"
SPLITS = ("train", "validation", "test")
FORMAT = 1
_REMEMBERED = 4
_opened: dict[str, SelectionTable] = {}


@dataclass(frozen=True)
class ModuleEntry:
    """One measured module."""

    name: str
    size: int
    kind: str
    split: str
    features: dict[str, float]

    @property
    def title(self) -> str:
        return f"{self.name}/{self.size}"


@dataclass(frozen=True)
class SelectionTable:
    """Measurements in flat arrays; the first record of a module is the original, with all ratios 1."""

    modules: tuple[ModuleEntry, ...]
    strategies: tuple[str, ...]  # the columns of `contains`
    module: np.ndarray  # [N] int32, the module of each record
    contains: np.ndarray  # [N, S] bool
    metrics: np.ndarray  # [N, 3] float64: speed ratio, memory ratio, accuracy
    intervals: np.ndarray  # [N, 3, 2] float64: their 95 % intervals
    failures: tuple[tuple[int, str, str], ...]  # module, candidate, why it could not be measured

    @property
    def size(self) -> int:
        return len(self.module)

    def records_of(self, module: int) -> np.ndarray:
        """Returns the records of a module ``[n] int64``, the original first."""
        return np.flatnonzero(self.module == module)

    def name(self, record: int) -> str:
        """Returns the name of a candidate, such as ``"attention_fusion+bf16"``."""
        found = [name for name, there in zip(self.strategies, self.contains[record], strict=True) if there]
        return "+".join(found) or "original"


def load_table(path: str | Path | None = None) -> SelectionTable:
    """Opens a recorded table; None: the one that comes with the package."""
    file = BUNDLED if path is None else Path(path)
    changed = file.stat().st_mtime_ns if file.is_file() else 0
    key = f"{file.resolve()} {changed}"
    if key not in _opened:
        try:
            data = read_json(file, values=2**22)
        except DataError as error:
            raise DataError(f"the recorded table cannot be read: {error}") from error
        table = _parse(file, data)
        while len(_opened) >= _REMEMBERED:
            _opened.pop(next(iter(_opened)))
        _opened[key] = table
    return _opened[key]


def _parse(file: Path, data: Any) -> SelectionTable:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else None
        raise DataError(f"{file}: expected a recorded table of format {FORMAT}, found format {found!r}")
    try:
        return _table(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: the recorded table is damaged ({type(error).__name__}: {error})") from error


def _table(data: dict[str, Any]) -> SelectionTable:
    recorded = {
        name for part in data["modules"] for row in part["records"] if row["measurement"] for name in row["strategies"]
    }
    unknown = recorded - set(STRATEGIES)
    if unknown:
        raise ValueError(f"unknown strategies {sorted(unknown)}")
    strategies = tuple(name for name in STRATEGIES if name in recorded)
    column = {name: i for i, name in enumerate(strategies)}
    modules: list[ModuleEntry] = []
    owner: list[int] = []
    contains: list[np.ndarray] = []
    metrics: list[list[float]] = []
    intervals: list[list[list[float]]] = []
    failures: list[tuple[int, str, str]] = []
    for index, part in enumerate(data["modules"]):
        if part["split"] not in SPLITS:
            raise ValueError(f"unknown split {part['split']!r}")
        features = {str(name): float(value) for name, value in part["features"].items()}
        modules.append(ModuleEntry(part["name"], int(part["size"]), part["kind"], part["split"], features))
        rows = sorted(part["records"], key=lambda row: len(row["strategies"]))  # the original first
        if not rows or rows[0]["strategies"]:
            raise ValueError(f"module {part['name']!r} lacks its original")
        for row in rows:
            measured = row["measurement"]
            if measured is None:
                failures.append((index, "+".join(row["strategies"]), str(row["reason"])))
                continue
            has = np.zeros(len(strategies), bool)
            has[[column[name] for name in row["strategies"]]] = True
            values = [measured[name] for name in ("speed", "memory", "accuracy")]
            first = not row["strategies"]  # measured against itself it is 1 up to noise; it is 1
            owner.append(index)
            contains.append(has)
            metrics.append([1.0] * 3 if first else [float(value["value"]) for value in values])
            intervals.append([[1.0, 1.0]] * 3 if first else [[float(v["low"]), float(v["high"])] for v in values])
    array = np.array(metrics, np.float64).reshape(-1, 3)
    if not np.isfinite(array).all() or (array[:, :2] <= 0).any():
        raise ValueError("a measurement is not finite or not positive")
    return SelectionTable(
        tuple(modules), strategies, np.array(owner, np.int32), np.array(contains, bool), array,
        np.array(intervals, np.float64), tuple(failures),
    )  # fmt: skip
