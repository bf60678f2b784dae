"""All raw episodes of a result folder as one Parquet table, with where they come from in the file's metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from treegym.bench.episodes import Episodes, read_episodes, read_training
from treegym.bench.results import ResultFolder
from treegym.errors import ConfigError, DataError, require
from treegym.files import atomic_path

__all__ = ["export_parquet"]

_NAMED = ("run", "env", "agent", "phase", "kind")  # text that repeats
_LEFT_OUT = ("curve", "final")  # of a run's summary: they follow from the episodes


def export_parquet(folder: str | os.PathLike[str], file: str | os.PathLike[str]) -> int:
    """Writes one row per episode, those of training and those of every evaluation; returns how many.

    The key ``treegym`` of the file's metadata holds, as JSON, the suite and for every run its seed, settings, cost,
    versions, git revision and hardware.
    """
    pa: Any = require("pyarrow", extra="parquet", purpose="writing Parquet")
    pq: Any = require("pyarrow.parquet", extra="parquet", purpose="writing Parquet")
    target = Path(file)
    if target.suffix != ".parquet":
        raise ConfigError(f"episodes are exported as Parquet: {target.name!r} must end in .parquet")
    results = ResultFolder(folder)
    runs = {path.stem: summary for path, summary in results.named_summaries()}
    if not runs:
        raise DataError(f"{results.path} has no finished run to export")
    about = {
        "suite": results.suite_table(),
        "runs": {run: {k: v for k, v in summary.items() if k not in _LEFT_OUT} for run, summary in runs.items()},
    }
    schema, count = _schema(pa, about), 0
    with atomic_path(target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for run, summary in runs.items():
            for part in _parts(results, run, summary):
                table = pa.table(part, schema=schema.remove_metadata()).replace_schema_metadata(schema.metadata)
                writer.write_table(table)
                count += table.num_rows
    return count


def _schema(pa: Any, about: Mapping[str, Any]) -> Any:
    text = pa.dictionary(pa.int32(), pa.string())
    numbers = {
        "seed": pa.int64(), "checkpoint": pa.int32(), "env_steps": pa.int64(), "prompt": pa.int32(),
        "return": pa.float64(), "correct": pa.bool_(), "true": pa.float64(), "proxy": pa.float64(),
        "length": pa.int32(), "regret": pa.float64(), "start": pa.int64(), "end": pa.int64(),
        "failed": pa.int32(),
    }  # fmt: skip
    fields = [pa.field(name, text) for name in _NAMED] + [pa.field(name, kind) for name, kind in numbers.items()]
    return pa.schema(fields, metadata={"treegym": json.dumps(about)})


def _parts(results: ResultFolder, run: str, summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the columns of a run's training, then of each of its evaluations."""
    if summary["training"] is not None:
        training, _ = read_training(results.training_path(run))
        yield _columns(run, summary, training, phase="training", checkpoint=None)
    points = {point["checkpoint"]: point for point in summary["curve"]}
    for number, episodes in read_episodes(results.episodes_path(run))[0].items():
        columns = _columns(run, summary, episodes, phase="evaluation", checkpoint=number)
        steps = points.get(number, {}).get("env_steps")
        yield columns | {"env_steps": [steps] * len(episodes), "start": [None] * len(episodes)}


def _columns(
    run: str, summary: Mapping[str, Any], episodes: Episodes, *, phase: str, checkpoint: int | None
) -> dict[str, Any]:
    same = {"run": run, "env": summary["env"], "agent": summary["agent"], "seed": summary["seed"], "phase": phase,
            "checkpoint": checkpoint}  # fmt: skip
    plain = {name: column.tolist() for name, column in episodes.columns().items()}
    for values in plain.values():
        values[:] = [None if value != value else value for value in values]  # NaN, which differs from itself
    return {name: [value] * len(episodes) for name, value in same.items()} | plain
