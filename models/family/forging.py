"""Trains the whole family in two single-threaded processes; finished models are kept, a killed run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treegym.errors import BackendError, DataError
from treegym.models.family.cards import WORK, is_finished, read_card
from treegym.models.family.specs import FAMILY, ModelSpec, quick

__all__ = ["WORKERS", "forge"]

WORKERS = 2
Report = Callable[[str, int, int], None]  # model, steps done, steps in all


def forge(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    is_quick: bool = False,
    workers: int = WORKERS,
    report: Report | None = None,
) -> list[dict[str, Any]]:
    """Trains every model that `out` does not hold yet and returns the cards of all.

    Each model's randomness comes from `seed` and its name alone, so neither the order nor an interruption changes a
    byte of the result.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to: {error.strerror or error}") from error
    specs = [quick(spec) if is_quick else spec for spec in FAMILY]
    todo: queue.SimpleQueue[ModelSpec] = queue.SimpleQueue()
    missing = [spec for spec in specs if not is_finished(folder, spec, seed=seed)]
    for spec in missing:
        todo.put(spec)
    crew = [_Worker(folder, seed, is_quick, todo, report) for _ in range(min(workers, len(missing)))]
    try:
        for worker in crew:
            worker.start()
        for worker in crew:
            worker.join()
    finally:
        for worker in crew:
            worker.stop()
    failures = [worker.failure for worker in crew if worker.failure]
    if failures:
        raise BackendError(f"forging stopped: {failures[0]}; models that were finished are kept in {folder}")
    with contextlib.suppress(OSError):  # left where another run still works in it
        (folder / WORK).rmdir()
    return [read_card(folder / spec.name) for spec in specs]


class _Worker(threading.Thread):
    """Feeds one training process and listens to it."""

    def __init__(
        self, out: Path, seed: int, is_quick: bool, todo: queue.SimpleQueue[ModelSpec], report: Report | None
    ) -> None:
        super().__init__(daemon=True)
        self.failure = ""
        self._todo = todo
        self._report = report
        command = [sys.executable, "-m", "treegym.models.family.worker", "--out", str(out), "--seed", str(seed)]
        self._command = [*command, "--quick"] if is_quick else command
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Hands over one model after another until none is left or one fails."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false"},
        ) as process:
            self._process = process
            assert process.stdin is not None
            complaints: list[str] = []
            listener = threading.Thread(target=lambda: complaints.extend(process.stderr or ()), daemon=True)
            listener.start()
            while not self.failure:
                try:
                    spec = self._todo.get_nowait()
                except queue.Empty:
                    break
                if not self._train(process, spec):
                    process.stdin.close()  # it may be waiting for another name
                    process.wait()
                    listener.join()
                    last = complaints[-1].strip() if complaints else "it said nothing"
                    self.failure = self.failure or f"{spec.name}: the process ended with {process.returncode}: {last}"
            process.stdin.close()

    def stop(self) -> None:
        """Ends the process if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def _train(self, process: subprocess.Popen[str], spec: ModelSpec) -> bool:
        """Returns whether the process trained a model to the end."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(spec.name + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return False
        for line in process.stdout:
            message = json.loads(line)
            if "error" in message:
                self.failure = f"{spec.name}: {message['error']}"
                return False
            done = spec.steps if "card" in message else message["step"]
            if self._report is not None:
                self._report(spec.name, done, spec.steps)
            if "card" in message:
                return True
        return False
