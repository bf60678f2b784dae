"""Clocks that a module cannot get around, and what it leaves running.

Wall time sees helper processes and sleep; CPU time includes threads, and children that were waited for. Neither is
disturbed much by a busy machine: time spent waiting for a processor is taken off the wall's. Where a module goes to
wait of its own accord the two disagree, and the worse of them is what a user gets.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from treegym.checks import one_of

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

__all__ = ["Clocks", "Spent", "Watch", "clocks_for", "helpers", "watch"]


class Spent(NamedTuple):
    """Seconds by both clocks."""

    wall: float
    cpu: float
    pauses: int  # how often the process went to wait for something of its own accord


class Clocks(NamedTuple):
    """Which clocks tell: `read` gives both, `main` is the one that measurements stop by."""

    read: Callable[[], Spent]
    main: str  # "wall" or "cpu"
    both: bool  # whether the other one is a check on it


def clocks_for(device: torch.device, name: str) -> Clocks:
    """Returns the clocks for modules on a device; see `MeasureSettings.clock`."""
    one_of("clock", name, ("auto", "cpu", "wall"))
    if device.type == "cuda":

        def synchronised() -> Spent:
            torch.cuda.synchronize(device)
            return Spent(time.perf_counter(), time.process_time(), 0)

        return Clocks(synchronised, "wall", both=False)
    alone = torch.get_num_threads() == 1 or os.cpu_count() == 1
    fine = alone and _cpu_clock_is_fine()
    main = "cpu" if name == "cpu" or (name == "auto" and fine) else "wall"
    return Clocks(_reader(), main, both=name == "auto" and fine)


def _reader() -> Callable[[], Spent]:
    """Returns what reads both clocks; time that this thread waited for a processor is not its wall time."""
    queue = "/proc/thread-self/schedstat"  # Linux: nanoseconds of running, of waiting to run
    descriptor = os.open(queue, os.O_RDONLY) if os.path.exists(queue) else -1

    def read() -> Spent:
        waited = int(os.pread(descriptor, 64, 0).split()[1]) * 1e-9 if descriptor >= 0 else 0.0
        children = os.times()
        cpu = time.process_time() + children.children_user + children.children_system
        pauses = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw if resource is not None else 0
        return Spent(time.perf_counter() - waited, cpu, pauses)

    if descriptor >= 0:
        weakref.finalize(read, os.close, descriptor)
    return read


def _cpu_clock_is_fine() -> bool:
    """Returns whether CPU time is counted finely: under a limit on CPU time (``ulimit -t``) Linux counts 4 ms steps."""
    for _ in range(3):
        start, deadline = time.process_time(), time.perf_counter() + 0.01
        while (now := time.process_time()) == start and time.perf_counter() < deadline:
            pass
        if start < now < start + 1e-4:
            return True
    return False


def helpers() -> list[str]:
    """Returns what runs beside the main thread of this process: threads of Python, and child processes."""
    threads = [f"thread {one.name}" for one in threading.enumerate() if one is not threading.main_thread()]
    children = []
    for file in Path("/proc/self/task").glob("*/children"):
        try:
            children += [f"process {pid}" for pid in file.read_text().split()]
        except OSError:  # the thread has just ended
            continue
    return threads + children


_PEEKING = {
    "sys._getframe", "sys._current_frames", "sys.settrace", "sys.setprofile", "gc.get_objects", "gc.get_referrers",
    "gc.get_referents",
}  # fmt: skip
_watching: list[Watch] = []


class Watch:
    """Notes which ways to look at its caller a module takes: the frames hold what it is measured with."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}
        self._who = ""

    @contextmanager
    def over(self, who: str) -> Iterator[None]:
        """Watches while `who` runs."""
        self._who = who
        _watching.append(self)
        try:
            yield
        finally:
            _watching.clear()

    def note(self, event: str) -> None:
        self.seen.setdefault(self._who, set()).add(event)

    def only(self, who: str, other: str) -> set[str]:
        """Returns what `who` did and `other` did not."""
        return self.seen.get(who, set()) - self.seen.get(other, set())


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in _PEEKING or (event == "object.__getattr__" and args[1] in ("tb_frame", "gi_frame")):
        _watching[0].note(event)


_hooked: list[bool] = []


def watch() -> Watch:
    """Returns a watch; the hook behind it stays in the process, where it does nothing unless something is watched."""
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    return Watch()
