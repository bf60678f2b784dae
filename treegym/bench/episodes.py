"""The raw episodes of one run, those of training and those of evaluation: tables in memory, gzipped JSON lines on disk.

Everything a report says is recomputed from these lines by `treegym bench verify`, so they hold each episode as it
ended, nothing averaged. The bytes depend on the episodes alone (no time stamp in the gzip header), so equal runs give
equal files.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np

from treegym.errors import DataError
from treegym.files import atomic_write
from treegym.untrusted import gzip_lines

__all__ = ["Episodes", "TrainingEpisodes", "read_episodes", "read_training", "write_episodes", "write_training"]


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """E episodes, column by column."""

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
    failed: np.ndarray  # [E] int32, steps at which a reward term failed; -1 where that was not counted

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def with_failures(self) -> int:
        """How many of the episodes were paid without a reward term that failed, or with its default."""
        return int((self.failed > 0).sum())

    def metric(self, name: str) -> np.ndarray:
        """Returns a score column by the name it has in suites and files."""
        column: np.ndarray = getattr(self, "ret" if name == "return" else name)
        return column.astype(np.float64)

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        parts = list(parts)
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the columns by the names they have in files."""
        return {_NAMES[f.name]: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, kw_only=True)
class TrainingEpisodes(Episodes):
    """E episodes that an agent learned from or threw away, in the order in which they ended."""

    start: np.ndarray  # [E] int64, the node an episode began at: its prompt's, but for exploring starts; -1 unknown
    env_steps: np.ndarray  # [E] int64, steps charged so far when it ended, those of all lanes

    def exploring_starts(self, tree: Any) -> int:
        """Returns how many episodes began elsewhere than at their prompt; 0 where there is no tree."""
        return 0 if tree is None else int((self.start != np.asarray(tree.root_node)[self.prompt]).sum())


_NAMES = {f.name: "return" if f.name == "ret" else f.name for f in fields(TrainingEpisodes)}
_TYPES: dict[str, Any] = {
    "prompt": np.int32, "kind": np.str_, "ret": np.float64, "correct": np.bool_, "true": np.float64,
    "proxy": np.float64, "length": np.int32, "regret": np.float64, "end": np.int64, "failed": np.int32,
    "start": np.int64, "env_steps": np.int64,
}  # fmt: skip
_LATER = {"failed": -1}  # columns that older files lack, and what stands for them


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
MOST_FIELDS = 64  # of an episode
RATIO = 64  # how many times smaller honest episodes are when they are packed, at most

_Kind = TypeVar("_Kind", bound=Episodes)


def write_episodes(path: str | os.PathLike[str], checkpoints: Mapping[int, Episodes]) -> str:
    """Writes the episodes of each checkpoint and returns the SHA-256 of the uncompressed lines."""
    return _write(path, [row for number, episodes in checkpoints.items() for row in _rows(episodes, checkpoint=number)])


def write_training(path: str | os.PathLike[str], episodes: TrainingEpisodes) -> str:
    """Writes the episodes of training and returns the SHA-256 of the uncompressed lines."""
    return _write(path, _rows(episodes))


def read_episodes(path: str | os.PathLike[str]) -> tuple[dict[int, Episodes], str]:
    """Returns the episodes by checkpoint and the SHA-256 of their lines; DataError for a damaged file."""
    rows, digest = _read(path)
    with _sound(path):
        if not rows:
            raise ValueError("no episodes")
        grouped: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            grouped.setdefault(int(np.int32(row["checkpoint"])), []).append(row)
        return {number: _table(Episodes, group) for number, group in grouped.items()}, digest


def read_training(path: str | os.PathLike[str]) -> tuple[TrainingEpisodes, str]:
    """Returns the episodes of training and the SHA-256 of their lines; DataError for a damaged file."""
    rows, digest = _read(path)
    with _sound(path):
        return _table(TrainingEpisodes, rows), digest


def _rows(episodes: Episodes, **first: Any) -> list[str]:
    columns = {name: _plain(column) for name, column in episodes.columns().items()}
    return [
        json.dumps({**first, **dict(zip(columns, row, strict=True))}) for row in zip(*columns.values(), strict=True)
    ]


def _write(path: str | os.PathLike[str], lines: list[str]) -> str:
    data = "".join(line + "\n" for line in lines).encode()
    atomic_write(path, gzip.compress(data, compresslevel=4, mtime=0))
    return hashlib.sha256(data).hexdigest()


def _read(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], str]:
    digest, rows = hashlib.sha256(), []
    with _sound(path):
        for line in gzip_lines(path, limit=RATIO * os.path.getsize(path) + 2**16):
            digest.update(line + b"\n")
            if line.count(b",") > MOST_FIELDS or line.count(b"[") + line.count(b"{") > 2:
                raise ValueError("a line holds more than an episode")  # and would take many times its size
            rows.append(_DECODER.decode(line.decode()))
    return rows, digest.hexdigest()


@contextlib.contextmanager
def _sound(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns whatever reading a damaged file raises into a DataError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: not a sound file of episodes: {error}") from error


def _table(kind: type[_Kind], rows: list[dict[str, Any]]) -> _Kind:
    columns = {}
    for f in fields(kind):
        name = _NAMES[f.name]
        values = [row.get(name, _LATER[name]) if name in _LATER else row[name] for row in rows]
        if _TYPES[f.name] is np.float64:
            values = [math.nan if value is None else float(value) for value in values]
        columns[f.name] = np.array(values, dtype=_TYPES[f.name])
        if columns[f.name].ndim != 1:
            raise ValueError(f"{name} holds lists")
        if columns[f.name].dtype.kind == "f" and np.isinf(columns[f.name]).any():
            raise ValueError(f"{name} is infinite")
    return kind(**columns)


def _plain(column: np.ndarray) -> list[Any]:
    """Returns a column as JSON values; NaN, which JSON lacks, as null."""
    if column.dtype.kind == "f":
        return [round(value, 9) if math.isfinite(value) else None for value in column.tolist()]
    return column.tolist()
