"""Runs the jobs of a suite in worker processes; whatever finished is kept, whatever did not starts again.

Workers are separate single-threaded processes: on two cores, two of them finish sooner than one with two threads, and
neither's CPU seconds contain the other's work. They are fed one job at a time over pipes, so a worker that dies takes
one run with it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import treegym
from treegym.agents.registry import AGENTS
from treegym.bench import chain
from treegym.bench.provenance import cores
from treegym.bench.results import ResultFolder
from treegym.bench.suite import Job, Suite
from treegym.errors import ConfigError, TreeGymError, suggest
from treegym.files import FULL, told_by
from treegym.locks import LOCK, held
from treegym.registration import find_spec

__all__ = ["Doing", "SuiteOutcome", "check_names", "run_again", "run_suite"]

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)

Doing = Callable[[Sequence[Job], ResultFolder], Generator[tuple[Job, dict[str, Any]]]]  # yields as jobs end
_GRACE = 2.0  # seconds a worker has to end by itself


def check_names(suite: Suite) -> None:
    """Raises ConfigError for an environment or an agent that cannot be found; agents are not imported for that."""
    for env in suite.envs:
        find_spec(env.id, where=f"suite {suite.name}")
    for name in (agent.agent for agent in suite.agents):
        if ":" not in name and name not in AGENTS:
            raise ConfigError(
                f"suite {suite.name}: unknown agent {name!r}; give a registered name or an import path such as "
                f"'my_module:MyAgent'.{suggest(name, AGENTS)}"
            )
        top = name.partition(":")[0].split(".")[0]
        if ":" in name and not _importable(top):
            raise ConfigError(
                f"suite {suite.name}: agent {name!r} names the module {top!r}, which is neither here nor installed"
            )


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@dataclass
class SuiteOutcome:
    """What became of a suite's runs."""

    finished: int = 0  # run now
    kept: int = 0  # found finished
    failed: dict[str, str] = field(default_factory=dict)  # job id: one sentence

    @property
    def complete(self) -> bool:
        return not self.failed


def run_suite(
    suite: Suite,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Callable[[Job, dict[str, Any]], None] | None = None,
    doing: Doing | None = None,
) -> SuiteOutcome:
    """Runs every job of `suite` that is not finished in `out` yet, and of the suite that `out` holds already.

    A run that fails (or whose worker dies) is recorded and the others go on. A full disk stops everything, since no
    other run could be saved either.

    Args:
        suite: what to run.
        out: the result folder; created if need be.
        workers: how many processes; by default one per core.
        progress: called with each job and its answer as it ends.
        doing: does the jobs in the folder instead of processes on this machine, such as `treegym.scale.runs`.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    folder = ResultFolder(out)
    if folder.path.exists() and not folder.path.is_dir():
        folder.prepare(suite)  # which says so
    with told_by(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    with held(folder.path / LOCK, what=f"the result folder {folder.path}"):  # before anything in it is changed
        return _run_missing(folder.prepare(suite), folder, doing or _processes(workers), progress)


def _processes(workers: int | None) -> Doing:
    def doing(jobs: Sequence[Job], folder: ResultFolder) -> Generator[tuple[Job, dict[str, Any]]]:
        count = min(cores() if workers is None else workers, len(jobs))
        with _Pool(count, folder) as pool:
            yield from pool.run(jobs)

    return doing


def _run_missing(
    suite: Suite, folder: ResultFolder, doing: Doing, progress: Callable[[Job, dict[str, Any]], None] | None
) -> SuiteOutcome:
    """Runs the jobs that a folder lacks, alone in it."""
    outcome = SuiteOutcome()
    waiting: list[Job] = []
    kept: list[str] = []
    for job in suite.jobs():
        if folder.finished(job) is None:
            waiting.append(job)
        else:
            kept.append(job.id)
    outcome.kept, chained = len(kept), folder.chained
    if chained:
        chain.append(folder.path, kept)  # a kill may have come between a run's end and its line
    if not waiting:
        return outcome
    with _interruptible(), contextlib.closing(doing(waiting, folder)) as answers:
        for job, answer in answers:
            if "error" not in answer:
                outcome.finished += 1
                if chained:
                    chain.append(folder.path, [job.id])
            elif answer.get("disk"):
                there = outcome.kept + outcome.finished
                raise TreeGymError(
                    f"run {job.id} could not be saved: {answer['error']}. {there} finished runs are kept in "
                    f"{folder.path}; make room and give the same command again"
                )
            else:
                outcome.failed[job.id] = answer["error"]
            if progress is not None:
                progress(job, answer)
    return outcome


def run_again(
    jobs: Sequence[Job], out: str | os.PathLike[str], *, source: str | None = None
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Runs jobs once more in a worker, with nothing kept; yields each with its answer. Results go to `out`.

    `source` is the file that they come from where their names are not to be trusted (`treegym.registry.hearsay`).
    """
    folder = ResultFolder(out)
    folder.runs.mkdir(parents=True, exist_ok=True)
    with _interruptible(), _Pool(1, folder, source) as pool:
        yield from pool.run(jobs)


class _Pool:
    """Worker processes, each with a thread that feeds it."""

    def __init__(self, count: int, folder: ResultFolder, source: str | None = None) -> None:
        self._count, self._source = count, source
        self._folder = folder
        self._answers: queue.SimpleQueue[tuple[Job, dict[str, Any]]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def run(self, jobs: Sequence[Job]) -> Any:
        """Yields each job with its answer, as they end."""
        waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        for job in [*jobs, *[None] * self._count]:
            waiting.put(job)
        for number in range(self._count):
            worker = _Worker(self._folder, number, self._source)
            self._workers.append(worker)
            threading.Thread(target=self._feed, args=(worker, waiting), daemon=True).start()
        for _ in jobs:
            yield self._next()

    def _next(self) -> tuple[Job, dict[str, Any]]:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=0.5)  # a bounded wait, so that Ctrl-C is noticed on every platform

    def _feed(self, worker: _Worker, waiting: queue.SimpleQueue[Job | None]) -> None:
        while (job := waiting.get()) is not None:
            self._answers.put((job, worker.do(job)))


class _Worker:
    """One worker process; started when needed, started again after it died."""

    def __init__(self, folder: ResultFolder, number: int, source: str | None = None) -> None:
        self._folder, self._source = folder, source
        self._log = folder.path / f"worker-{number}.log"
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def do(self, job: Job) -> dict[str, Any]:
        """Sends a job and waits for the answer; a worker that dies answers with an error."""
        try:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            request = {"job": job.as_json(), "out": os.fspath(self._folder.path), "source": self._source}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError) as error:  # its end of the pipe is closed, or ours, as the benchmark is ending
            self._forget()
            reason = getattr(error, "strerror", None) or error
            disk = getattr(error, "errno", None) in FULL or self._full()
            return {"id": job.id, "error": f"its worker could not be reached: {reason}", "disk": disk}
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        if self._full():  # then the worker could not even say so
            self._forget()
            return {"id": job.id, "error": "no space left on the disk", "disk": True}
        return {"id": job.id, "error": f"the worker {self._forget()}; see {self._log.name}"}

    def _full(self) -> bool:
        """Returns whether there is no room for a summary."""
        return shutil.disk_usage(self._folder.path).free < 2**16

    def _forget(self) -> str:
        """Lets a dead worker go, so that the next job starts a new one; returns how it ended."""
        process, self._process = self._process, None
        if process is None:
            return "did not start"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE)  # or it would be told that we ended it, when it was ending by itself
        process.kill()
        code = process.wait()
        return f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _started(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise OSError("the benchmark is ending")
            if self._process is None:
                with open(self._log, "a") as log:
                    self._process = _start(log)
            return self._process

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            process = self._process  # the thread that feeds it may let go of it meanwhile
            if process is None:
                return
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()  # it ends by itself then, without leaving a file half written
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_GRACE)
            process.kill()
            process.wait()


def _start(log: TextIO) -> subprocess.Popen[str]:
    # A group of its own keeps the terminal's Ctrl-C from reaching the worker before the runner has decided.
    return subprocess.Popen(
        [sys.executable, "-m", "treegym.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, **_ONE_THREAD, "PYTHONPATH": _search_path()},
        start_new_session=True,
    )


def _search_path() -> str:
    """Returns PYTHONPATH for workers: where we run from comes first, so that a suite can name one's own modules."""
    home = Path(treegym.__file__).resolve().parents[1]
    return os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", ""), os.fspath(home)]))


@contextlib.contextmanager
def _interruptible() -> Any:
    """Turns a polite kill into the same orderly end as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
