"""The raw episodes of one run: a table in memory, gzipped JSON lines on disk.

Everything a report says is recomputed from these lines by `treegym bench verify`, so they hold each episode as it
ended, nothing averaged. The bytes depend on the episodes alone (no time stamp in the gzip header), so equal runs give
equal files.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import DataError
from treegym.files import atomic_write

__all__ = ["Episodes", "read_episodes", "write_episodes"]


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """The E episodes of one evaluation, column by column."""

    prompt: np.ndarray  # [E] int32, which prompt (root), or the episode's seed in worlds without prompts
    kind: np.ndarray  # [E] str, the kind of task
    ret: np.ndarray  # [E] float64, sum of the rewards that evaluation pays
    correct: np.ndarray  # [E] bool, the verifier's last word
    true: np.ndarray  # [E] float64, the verifier's score
    proxy: np.ndarray  # [E] float64, sum of the rewards that the agent was trained on
    length: np.ndarray  # [E] int32, steps
    regret: np.ndarray  # [E] float64, best possible return minus the return; NaN where the best is unknown
    end: (
        np.ndarray
    )  # [E] int64, the node an episode ended in, so that its text can be looked up; -1 where there is none

    def __len__(self) -> int:
        return len(self.prompt)

    def metric(self, name: str) -> np.ndarray:
        """Returns a score column by the name it has in suites and files."""
        column: np.ndarray = getattr(self, "ret" if name == "return" else name)
        return column.astype(np.float64)

    @classmethod
    def join(cls, parts: Iterable[Episodes]) -> Episodes:
        parts = list(parts)
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


_NAMES = {field.name: "return" if field.name == "ret" else field.name for field in fields(Episodes)}
_TYPES: dict[str, Any] = {
    "prompt": np.int32, "kind": np.str_, "ret": np.float64, "correct": np.bool_, "true": np.float64,
    "proxy": np.float64, "length": np.int32, "regret": np.float64, "end": np.int64,
}  # fmt: skip


def write_episodes(path: str | os.PathLike[str], checkpoints: Mapping[int, Episodes]) -> str:
    """Writes the episodes of each checkpoint and returns the SHA-256 of the uncompressed lines."""
    lines = []
    for checkpoint, episodes in checkpoints.items():
        columns = {name: _plain(getattr(episodes, field)) for field, name in _NAMES.items()}
        for row in zip(*columns.values(), strict=True):
            lines.append(json.dumps({"checkpoint": checkpoint, **dict(zip(columns, row, strict=True))}))
    data = ("\n".join(lines) + "\n").encode()
    atomic_write(path, gzip.compress(data, compresslevel=4, mtime=0))
    return hashlib.sha256(data).hexdigest()


def read_episodes(path: str | os.PathLike[str]) -> tuple[dict[int, Episodes], str]:
    """Returns the episodes by checkpoint and the SHA-256 of their lines; DataError for a damaged file."""
    file = Path(path)
    try:
        data = gzip.decompress(file.read_bytes())
        rows = [json.loads(line) for line in data.decode().splitlines()]
        if not rows:
            raise ValueError("no episodes")
        grouped: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            grouped.setdefault(int(row["checkpoint"]), []).append(row)
        checkpoints = {number: _columns(group) for number, group in grouped.items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(f"{file}: not a sound file of episodes: {error}") from error
    return checkpoints, hashlib.sha256(data).hexdigest()


def _columns(rows: list[dict[str, Any]]) -> Episodes:
    columns = {}
    for field, name in _NAMES.items():
        values = [row[name] for row in rows]
        if field in ("ret", "true", "proxy", "regret"):
            values = [math.nan if value is None else float(value) for value in values]
        columns[field] = np.array(values, dtype=_TYPES[field])
    return Episodes(**columns)


def _plain(column: np.ndarray) -> list[Any]:
    """Returns a column as JSON values; NaN, which JSON lacks, as null."""
    if column.dtype.kind == "f":
        return [round(value, 9) if math.isfinite(value) else None for value in column.tolist()]
    return column.tolist()
