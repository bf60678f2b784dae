"""A result folder: the suite it belongs to, one summary and one file of raw episodes per run.

::

    runs/bench/
        suite.json                      the suite, the format and the version that wrote it
        runs/ENV--AGENT--SEED.json      a finished run: cost, learning curve, final scores, provenance
        runs/ENV--AGENT--SEED.jsonl.gz  its raw episodes of evaluation
        runs/ENV--AGENT--SEED.training.jsonl.gz  those it was trained on, where it learns
        chain.jsonl                     the runs in the order they finished, each line sealed over the one before
        worker-0.log                    what agents printed, tracebacks of failed runs
        leaderboard.json, .csv, report.md, report.html

A run's summary is renamed into place after its episodes, so a run either is finished or has left nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import treegym
from treegym.bench import chain
from treegym.bench.suite import FORMAT, Job, Suite, parse_suite
from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write, told_by
from treegym.locks import LOCK
from treegym.shape import COUNT, misfit
from treegym.untrusted import read_json

__all__ = ["ResultFolder", "joined", "merge", "strict_json"]

_NUMBER, _COUNT = (float, None), (int, None)  # where a value may be unknown


def _costs(value: Any) -> bool:
    """A shape: numbers by name, and those of evaluation by name again."""
    parts = [{**value, "evaluation": None}, value.get("evaluation", {})] if isinstance(value, dict) else [None]
    return all(misfit(part, {"*": _NUMBER}) is None for part in parts)


def _some(value: Any) -> bool:
    """A shape: whole numbers from 1."""
    return COUNT(value) and value > 0


SUMMARY: Any = {  # the shape of a run; `misfit` says where one departs from it
    "format": int, "fingerprint": str, "env": str, "agent": str, "seed": int,
    "cost": _costs,
    "curve": [{"checkpoint": int, "score": float, "*": _NUMBER}],
    "final": {
        "score": float, "prompts": [int], "scores": [float],
        "kinds": {"*": {"score": float, "episodes": int, "*": _NUMBER}},
        "*": _NUMBER,
    },
    "episodes": {"sha256": str, "count": _some},
    "training": (None, {"sha256": str, "count": COUNT, "env_steps": COUNT}),
    "samples": [{"prompt": str, "answer": str, "correct": bool}],
    "failed_rewards": (None, {"training": COUNT, "evaluation": COUNT}),
    "hyperparameters": {},
    "reference": {"*": float},
    "provenance": {"versions": {"*": str}, "git": str, "hardware": {"*": (str, float)}},
}  # fmt: skip


class ResultFolder:
    """Reads and writes a result folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.runs = self.path / "runs"

    def prepare(self, suite: Suite) -> Suite:
        """Creates the folder for a suite, or extends the one that is there by the suite's new agents and seeds.

        Returns the suite that the folder holds then.
        """
        marker = self.path / "suite.json"
        if marker.exists():
            held = self.suite_table()
            if held.get("version") != treegym.__version__:
                raise ConfigError(
                    f"{self.path} holds results of treegym {held.get('version')}, and this is {treegym.__version__}; "
                    "give another folder with --out, so that versions are not mixed"
                )
            if held.get("fingerprint") != suite.fingerprint:
                suite = joined(self.suite(), suite, where=str(self.path))
                self._write_suite(suite)
        elif self.path.exists() and (not self.path.is_dir() or any(map(_foreign, self.path.iterdir()))):
            raise ConfigError(f"{self.path} exists and is not a result folder; give another one with --out")
        self.path.mkdir(parents=True, exist_ok=True)
        if not marker.exists():  # before anything else, so that a kill never leaves a folder that nobody owns
            self._write_suite(suite)
        self.runs.mkdir(exist_ok=True)
        return suite

    def _write_suite(self, suite: Suite) -> None:
        table = {
            "version": treegym.__version__, "fingerprint": suite.fingerprint, "suite": suite.as_json(), "chained": True,
        }  # fmt: skip
        atomic_write(self.path / "suite.json", json.dumps(table, indent=1) + "\n")

    def suite_table(self) -> dict[str, Any]:
        """Returns what suite.json holds; DataError when this is not a result folder, or one of another format."""
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

    @property
    def chained(self) -> bool:
        """Whether the folder was written by a version that keeps a chain of its runs."""
        return self.suite_table().get("chained") is True

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


def joined(held: Suite, more: Suite, *, where: str) -> Suite:
    """Returns a suite with the agents and seeds of both; ConfigError where anything else differs, naming it."""
    for what in ("name", "envs", "budget", "checkpoints", "split", "episodes"):
        if getattr(held, what) != getattr(more, what):
            raise ConfigError(
                f"{where} holds results of suite {held.name!r} with other settings ({what} differ); a folder can be "
                "extended by agents and seeds only: give another folder with --out, or remove that one"
            )
    agents = {agent.name: agent for agent in held.agents}
    for agent in more.agents:
        if agents.setdefault(agent.name, agent) != agent:
            raise ConfigError(
                f"{where} holds results of suite {held.name!r} with other settings of the agent {agent.name!r}; give "
                "the agent another name, or the results another folder with --out"
            )
    return replace(
        held,
        agents=tuple(agents.values()),
        seeds=tuple(sorted({*held.seeds, *more.seeds})),
        description=more.description,
    )


def merge(sources: Sequence[str | os.PathLike[str]], target: str | os.PathLike[str]) -> int:
    """Joins result folders of one suite with different agents or seeds into a new one; returns how many runs it has."""
    folders = [ResultFolder(path) for path in sources]
    suite = folders[0].suite()
    for folder in folders[1:]:
        suite = joined(suite, folder.suite(), where=str(folders[0].path))
    out = ResultFolder(target)
    if out.path.exists():
        raise ConfigError(f"{out.path} exists already; merge into a new folder")
    for folder in folders:
        for fault in chain.faults(folder.path) if folder.chained else ():
            raise DataError(f"{folder.path} cannot be merged: {fault}")
    with (
        told_by(out.path, kept="the folders that were to be merged are kept"),
        tempfile.TemporaryDirectory(prefix=".merge.", suffix=".tmp", dir=out.path.absolute().parent) as staging,
    ):
        whole = ResultFolder(Path(staging) / out.path.name)
        whole.prepare(suite)
        count = _merged(folders, whole)
        whole.path.replace(out.path)
    return count


def _merged(folders: Sequence[ResultFolder], out: ResultFolder) -> int:
    names: list[str] = []
    for folder in folders:
        known = [entry["run"] for entry in chain.entries(folder.path)]
        rest = [path.stem for path in sorted(folder.runs.glob("*.json"))]
        for name in dict.fromkeys([*known, *rest]):
            path = out.runs / f"{name}.json"
            if path.exists():
                if path.read_bytes() == (folder.runs / f"{name}.json").read_bytes():
                    continue
                raise DataError(f"{folder.path} has another run {name} than an earlier folder; leave one of them out")
            for own in (folder.training_path(name), folder.episodes_path(name), folder.runs / f"{name}.json"):
                if own.exists():
                    shutil.copyfile(own, out.runs / own.name)
            names.append(name)
    chain.append(out.path, names)
    return len(list(out.runs.glob("*.json")))


def _foreign(path: Path) -> bool:
    """Returns whether a file shows that a folder is somebody else's; what a kill left of our own first write is not."""
    return not path.name.startswith((".suite.json.", LOCK))


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
    summary.setdefault("samples", [])  # nor keep answers to be read
    if not isinstance(summary.get("world"), str | None):
        raise DataError(f"{path} is damaged: world is not what it should be")
    if (fault := misfit(summary, SUMMARY)) is not None:
        raise DataError(f"{path} is damaged: {fault.lstrip('.')} is missing or not what it should be")
    if len(summary["final"]["prompts"]) != len(summary["final"]["scores"]) or not summary["curve"]:
        raise DataError(f"{path} is damaged: its prompts and scores differ in number, or it has no curve")
    return summary


def strict_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file, or raises DataError."""
    try:
        value = read_json(path, limit=2**26, values=2**22)
    except DataError as error:
        raise DataError(f"{path} is damaged: {str(error).removeprefix(f'{path}: ')}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} does not hold a JSON object")
    return value
