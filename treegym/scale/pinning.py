"""Cores for one process alone: pinned to them, and held against every other that asks in this way.

A lock file per core is held by whoever measures there; the kernel lets go of it when that process ends.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from treegym.errors import BackendError, ConfigError

__all__ = ["pin"]

_PATIENCE = 20.0  # seconds in which a worker that was just ended lets go of its cores
_held: list[int] = []  # descriptors of the locks; closed when the process ends


def pin(count: int) -> list[int]:
    """Pins this process to `count` cores that no other pinned process has, and returns them."""
    import fcntl

    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise ConfigError(f"a worker asks for {count} cores, and this machine gives it {len(cores)}; ask for less")
    folder = Path(tempfile.gettempdir())
    deadline = time.monotonic() + _PATIENCE
    mine: dict[int, int] = {}
    while True:
        for core in cores:
            if len(mine) == count:
                break
            if core not in mine:
                lock = os.open(folder / f"treegym-core-{core}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    mine[core] = lock
                except BlockingIOError:
                    os.close(lock)
        if len(mine) == count:
            _held.extend(mine.values())
            os.sched_setaffinity(0, mine)
            return sorted(mine)
        if time.monotonic() > deadline:
            for lock in mine.values():
                os.close(lock)
            raise BackendError(
                f"{count} of {len(cores)} cores are wanted for one worker alone, and others measure on all but "
                f"{len(mine)}; start the node with as many CPUs as it has cores (`ray start --num-cpus`)"
            )
        time.sleep(0.2)
