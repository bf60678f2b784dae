"""A result folder: the suite it belongs to, one summary and one file of raw episodes a run.

::

    runs/bench/
        suite.json                      the suite, the format and the version that wrote it
        runs/ENV--AGENT--SEED.json      a finished run: cost, learning curve, final scores, provenance
        runs/ENV--AGENT--SEED.jsonl.gz  its raw episodes of evaluation
        runs/ENV--AGENT--SEED.training.jsonl.gz  those it was trained on, where it learns
        worker-0.log                    what agents printed, tracebacks of failed runs
        leaderboard.json, .csv, report.md, report.html

A run's summary is renamed into place after its episodes, so a run either is finished or has left nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import treegym
from treegym.bench.shape import SUMMARY, misfit
from treegym.bench.suite import FORMAT, Job, Suite, parse_suite
from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write

__all__ = ["ResultFolder", "strict_json"]


class ResultFolder:
    """Reads and writes a result folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.runs = self.path / "runs"

    def prepare(self, suite: Suite) -> None:
        """Creates the folder for a suite, or checks that the existing one belongs to it."""
        marker = self.path / "suite.json"
        if marker.exists():
            held = self.suite_table()
            if held.get("version") != treegym.__version__:
                raise ConfigError(
                    f"{self.path} holds results of treegym {held.get('version')}, and this is {treegym.__version__}; "
                    "give another folder with --out, so that versions are not mixed"
                )
            if held.get("fingerprint") != suite.fingerprint:
                raise ConfigError(
                    f"{self.path} holds results of suite {held.get('suite', {}).get('name')!r} with other settings; "
                    "give another folder with --out, or remove that one"
                )
        elif self.path.exists() and (not self.path.is_dir() or any(map(_foreign, self.path.iterdir()))):
            raise ConfigError(f"{self.path} exists and is no result folder; give another one with --out")
        self.path.mkdir(parents=True, exist_ok=True)
        if not marker.exists():  # before anything else, so that a kill never leaves a folder that nobody owns
            table = {"version": treegym.__version__, "fingerprint": suite.fingerprint, "suite": suite.as_json()}
            atomic_write(marker, json.dumps(table, indent=1) + "\n")
        self.runs.mkdir(exist_ok=True)

    def suite_table(self) -> dict[str, Any]:
        """Returns what suite.json holds; DataError when this is no result folder, or one of another format."""
        marker = self.path / "suite.json"
        if not marker.is_file():
            raise DataError(f"{self.path} is not a result folder: it has no suite.json (make one with `treegym bench`)")
        table = strict_json(marker)
        suite = table.get("suite")
        found = suite.get("format") if isinstance(suite, dict) else None
        if found != FORMAT:
            raise DataError(
                f"{self.path} holds results in format {found!r}, and treegym {treegym.__version__} reads format "
                f"{FORMAT}; give another folder, or use the version that wrote it ({table.get('version')!r})"
            )
        return table

    def suite(self) -> Suite:
        """Returns the suite the folder belongs to."""
        return suite_from_json(self.suite_table()["suite"], where=f"{self.path}/suite.json")

    def summary_path(self, job: Job) -> Path:
        return self.runs / f"{job.id}.json"

    def episodes_path(self, job_id: str) -> Path:
        return self.runs / f"{job_id}.jsonl.gz"

    def training_path(self, job_id: str) -> Path:
        return self.runs / f"{job_id}.training.jsonl.gz"

    def finished(self, job: Job) -> dict[str, Any] | None:
        """Returns the summary of a finished run of exactly this job, or None."""
        path = self.summary_path(job)
        if not path.exists():
            return None
        summary = _summary(path)
        return summary if summary["fingerprint"] == job.fingerprint else None

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Yields the summary of every finished run, in the order of file names."""
        for _, summary in self.named_summaries():
            yield summary

    def named_summaries(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yields the file and the summary of every finished run, in the order of file names."""
        for path in sorted(self.runs.glob("*.json")):
            yield path, _summary(path)


def _foreign(path: Path) -> bool:
    """Returns whether a file shows that a folder is somebody else's; what a kill left of our own first write is not."""
    return not path.name.startswith(".suite.json.")


def suite_from_json(value: Mapping[str, Any], *, where: str) -> Suite:
    """Returns the suite in a suite.json; its parts go through the same checks as a TOML file's."""
    try:
        table = {key: value[key] for key in ("name", "description", "seeds", "checkpoints", "budget", "agents")}
        table["evaluation"] = {"split": value["split"], "episodes": value["episodes"]}
        table["envs"] = [
            {key: entry for key, entry in env.items() if key != "budget" or entry} for env in value["envs"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is damaged: {error}") from error
    return parse_suite(table, where=where)


def _summary(path: Path) -> dict[str, Any]:
    summary = strict_json(path)
    if summary.get("format") != FORMAT:
        raise DataError(f"{path} is not a run of format {FORMAT}")
    summary.setdefault("failed_rewards", None)  # older runs did not count them
    if (fault := misfit(summary, SUMMARY)) is not None:
        raise DataError(f"{path} is damaged: {fault.lstrip('.')} is missing or not what it should be")
    if len(summary["final"]["prompts"]) != len(summary["final"]["scores"]) or not summary["curve"]:
        raise DataError(f"{path} is damaged: its prompts and scores differ in number, or it has no curve")
    return summary


def strict_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file, or raises DataError."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} does not hold a JSON object")
    return value
