"""Jobs that go well, fail, kill their worker or stop it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def make(setup: str) -> Callable[[str], str]:
    """Returns what does a job; `setup` is a folder, in which a job that stops leaves a mark the first time."""

    def do(job: str) -> str:
        if job == "fails":
            raise ValueError("there is no such thing\nand more about it")
        if job == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        mark = Path(setup) / job
        if job.startswith("stops") and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        if job.startswith("waits"):
            mark.touch()
            time.sleep(1.0)
        return job.upper() * (2**20 if job.startswith("large") else 1)

    return do
