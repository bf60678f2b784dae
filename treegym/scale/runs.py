"""The runs of a suite on a cluster: a worker sends back the files of a run, and the folder here is written as ever.

So nodes share no file system, and a head node that is lost takes no finished run with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from treegym.bench.results import ResultFolder
from treegym.bench.runner import Doing
from treegym.bench.suite import Job
from treegym.bench.worker import answer_to
from treegym.errors import StorageError
from treegym.files import atomic_write
from treegym.scale.cluster import connected, room_of
from treegym.scale.crew import Answer, work

__all__ = ["on_cluster", "runner"]


def on_cluster(args: Any) -> Doing:
    """Returns what does runs on the cluster that the options of a command name."""

    def doing(jobs: Sequence[Job], folder: ResultFolder) -> Generator[tuple[Job, dict[str, Any]]]:
        with connected(args.ray) as ray:
            requests = [job.as_json() for job in jobs]
            options = {"room": room_of(args), "workers": args.workers, "patience": args.patience}
            for answer in work(ray, "treegym.scale.runs:runner", None, requests, **options):
                yield jobs[answer.job], _kept(jobs[answer.job], answer, folder)

    return doing


def runner(setup: None) -> Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, bytes]]]:
    """Returns what a worker does: a job becomes its answer and the files of its run."""

    def run(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
        with tempfile.TemporaryDirectory(prefix="treegym-run-") as folder:
            runs = Path(folder) / "runs"
            runs.mkdir()
            answer = answer_to({"job": job, "out": folder})
            files = {path.name: path.read_bytes() for path in runs.iterdir()} if "error" not in answer else {}
        return answer, files

    return run


def _kept(job: Job, reply: Answer, folder: ResultFolder) -> dict[str, Any]:
    """Writes the files of a run, its summary last; returns the answer that the runner expects."""
    if reply.failure:
        return {"id": job.id, "error": reply.failure}
    answer, files = reply.value
    if "error" in answer:  # a disk that is full there stops nobody here
        return {"id": job.id, "error": f"on node {reply.node}: {answer['error']}"}
    summary = folder.summary_path(job)
    try:
        for name in sorted(files, key=lambda name: name == summary.name):
            atomic_write(folder.runs / name, files[name])
    except StorageError as error:
        return {"id": job.id, "error": error.strerror or str(error), "disk": True}
    found: dict[str, Any] = answer
    return found
