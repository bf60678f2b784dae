"""A child process for work that may crash, hang or explode: it costs only itself.

The child is a fork, so it starts in milliseconds and sees any module without serialising it; only JSON comes back.
It computes on one thread (thread pools do not survive a fork). Where forking is impossible (no POSIX, or the module
is on a GPU, whose driver does not survive a fork) the work runs in this process and says so in ``isolated``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Limits", "WorkResult", "can_fork", "in_child", "processors", "run", "run_all"]

_CHUNK = 65_536
_forked: list[int] = []  # the process id, in a child


@dataclass(frozen=True)
class Limits:
    """What a child may use."""

    seconds: float = 60.0
    megabytes: int = 4_096  # beyond what the parent has mapped when it forks


@dataclass(frozen=True)
class WorkResult:
    """What came of the work: its result, or the reason there is none, in one sentence."""

    result: dict[str, Any] | None
    reason: str = ""
    isolated: bool = True


def processors() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork(module: torch.nn.Module | None = None) -> bool:
    """Returns whether work on this module can run in a forked child."""
    on_gpu = module is not None and any(parameter.device.type != "cpu" for parameter in module.parameters())
    return hasattr(os, "fork") and not on_gpu


def in_child() -> bool:
    """Returns whether this process is a child that `run` made."""
    return _forked == [os.getpid()]


def run(work: Callable[[], dict[str, Any]], limits: Limits | None = None, *, fork: bool = True) -> WorkResult:
    """Runs `work` in a child under limits and returns its JSON-able result."""
    return run_all([work], limits, fork=fork)[0]


def run_all(
    works: Sequence[Callable[[], dict[str, Any]]],
    limits: Limits | None = None,
    *,
    at_once: int = 1,
    fork: bool = True,
) -> list[WorkResult]:
    """Runs every piece of work in a child of its own, `at_once` of them side by side; outcomes in the order given."""
    limits = limits or Limits()
    if not fork:
        return [_guarded(work) for work in works]
    outcomes: dict[int, WorkResult] = {}
    waiting = list(enumerate(works))[::-1]
    running: dict[int, _Running] = {}  # by the descriptor that is read from
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                index, work = waiting.pop()
                child = _start(index, work, limits)
                running[child.reader] = child
            first = min(child.deadline for child in running.values())
            ready, _, _ = select.select(list(running), [], [], max(0.0, first - time.monotonic()))
            now = time.monotonic()
            for reader, child in list(running.items()):
                part = os.read(reader, _CHUNK) if reader in ready else None
                if part:
                    child.parts.append(part)
                elif part is not None or now >= child.deadline:
                    del running[reader]
                    outcomes[child.index] = _finish(child, None if part is not None else limits.seconds)
    finally:
        for child in running.values():  # an interrupt, or an error of our own
            _finish(child, limits.seconds)
    return [outcomes[index] for index in range(len(works))]


@dataclass
class _Running:
    """A child at work."""

    index: int
    pid: int
    reader: int
    deadline: float
    parts: list[bytes]


def _start(index: int, work: Callable[[], dict[str, Any]], limits: Limits) -> _Running:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(work, writer, limits)
    os.close(writer)
    with contextlib.suppress(OSError):  # the child does it too: whoever comes first
        os.setpgid(pid, pid)
    return _Running(index, pid, reader, time.monotonic() + limits.seconds, [])


def _finish(child: _Running, late: float | None) -> WorkResult:
    """Ends a child, and whatever it has started; returns what came of it."""
    os.close(child.reader)
    if late is not None:
        os.kill(child.pid, signal.SIGKILL)
    _, status = os.waitpid(child.pid, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # compilers and helpers that outlive it
    if late is not None:
        return WorkResult(None, f"stopped after {late:g} s")
    data = b"".join(child.parts)
    if not data:
        return WorkResult(None, _cause_of_death(status))
    answer = json.loads(data)
    return WorkResult(answer.get("result"), answer.get("reason", ""))


def _child(work: Callable[[], dict[str, Any]], writer: int, limits: Limits) -> None:
    """Runs in the fork; never returns."""
    import resource  # POSIX only, as fork is

    status = 1
    _forked[:] = [os.getpid()]
    try:
        sink = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(sink, descriptor)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)  # a group of its own: what it starts ends with it
        torch.set_num_threads(1)
        _keep_libraries_alone()
        mapped = _mapped_bytes()
        ceiling = mapped + limits.megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no RLIMIT_CPU: with one Linux reads CPU clocks in 4 ms steps
        outcome = _guarded(work)
        data = json.dumps({"result": outcome.result, "reason": outcome.reason}).encode()
        while data:
            data = data[os.write(writer, data) :]
        status = 0
    finally:
        os._exit(status)


def _keep_libraries_alone() -> None:
    """Keeps libraries from starting helpers, which could not be told from those that a candidate leaves running."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    if "torch._inductor.config" in sys.modules:  # it has read the environment already
        sys.modules["torch._inductor.config"].compile_threads = 1  # type: ignore[attr-defined]
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.monitor_interval = 0


def _guarded(work: Callable[[], dict[str, Any]]) -> WorkResult:
    try:
        return WorkResult(work(), isolated=False)
    except MemoryError:
        return WorkResult(None, "ran out of its memory limit", isolated=False)
    except Exception as error:  # noqa: BLE001 - whatever a candidate does is a result about the candidate
        text = str(error).strip().splitlines()
        if "allocate memory" in str(error):
            return WorkResult(None, "ran out of its memory limit", isolated=False)
        kind = "" if type(error).__name__ in ("NotApplicable", "Refused") else f"{type(error).__name__}: "
        return WorkResult(None, f"{kind}{text[0][:300] if text else 'no message'}", isolated=False)


def _mapped_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 64 * 2**30  # no /proc (macOS): a ceiling that only stops runaways


def _cause_of_death(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"crashed with {signal.Signals(number).name}"
    return f"ended with exit code {os.waitstatus_to_exitcode(status)} and no result"
