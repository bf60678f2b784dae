"""A child process for work that may crash, hang or explode: it costs only itself.

The child is a fork, so it starts in milliseconds and sees any module without serialising it; only JSON comes back.
It computes on one thread (thread pools do not survive a fork). Where forking is impossible (no POSIX, or the module
is on a GPU, whose driver does not survive a fork) the work runs in this process and says so in ``isolated``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Limits", "Outcome", "can_fork", "run"]

_CHUNK = 65_536


@dataclass(frozen=True)
class Limits:
    """What a child may use."""

    seconds: float = 60.0
    megabytes: int = 4_096  # beyond what the parent has mapped when it forks


@dataclass(frozen=True)
class Outcome:
    """What came of the work: its result, or the reason there is none, in one sentence."""

    result: dict[str, Any] | None
    reason: str = ""
    isolated: bool = True


def can_fork(module: torch.nn.Module | None = None) -> bool:
    """Returns whether work on this module can run in a forked child."""
    on_gpu = module is not None and any(parameter.device.type != "cpu" for parameter in module.parameters())
    return hasattr(os, "fork") and not on_gpu


def run(work: Callable[[], dict[str, Any]], limits: Limits | None = None, *, fork: bool = True) -> Outcome:
    """Runs `work` in a child under limits and returns its JSON-able result."""
    limits = limits or Limits()
    if not fork:
        return _guarded(work)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(work, writer, limits)
    os.close(writer)
    try:
        data, late = _read_until(reader, time.monotonic() + limits.seconds)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(reader)
    if late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if late:
        return Outcome(None, f"stopped after {limits.seconds:g} s")
    if not data:
        return Outcome(None, _cause_of_death(status))
    answer = json.loads(data)
    return Outcome(answer.get("result"), answer.get("reason", ""))


def _child(work: Callable[[], dict[str, Any]], writer: int, limits: Limits) -> None:
    """Runs in the fork; never returns."""
    import resource  # POSIX only, as fork is

    status = 1
    try:
        sink = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(sink, descriptor)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        torch.set_num_threads(1)
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        mapped = _mapped_bytes()
        ceiling = mapped + limits.megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        outcome = _guarded(work)
        data = json.dumps({"result": outcome.result, "reason": outcome.reason}).encode()
        while data:
            data = data[os.write(writer, data) :]
        status = 0
    finally:
        os._exit(status)


def _guarded(work: Callable[[], dict[str, Any]]) -> Outcome:
    try:
        return Outcome(work(), isolated=False)
    except MemoryError:
        return Outcome(None, "ran out of its memory limit", isolated=False)
    except Exception as error:  # noqa: BLE001 - whatever a candidate does is a result about the candidate
        text = str(error).strip().splitlines()
        if "allocate memory" in str(error):
            return Outcome(None, "ran out of its memory limit", isolated=False)
        kind = "" if type(error).__name__ == "NotApplicable" else f"{type(error).__name__}: "
        return Outcome(None, f"{kind}{text[0][:300] if text else 'no message'}", isolated=False)


def _read_until(reader: int, deadline: float) -> tuple[bytes, bool]:
    """Reads to the end of the pipe; the flag says that the deadline came first."""
    parts: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return b"", True
        ready, _, _ = select.select([reader], [], [], left)
        if ready:
            part = os.read(reader, _CHUNK)
            if not part:
                return b"".join(parts), False
            parts.append(part)


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
