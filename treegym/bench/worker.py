"""A worker process: takes jobs as JSON lines on standard input, answers as JSON lines on standard output.

Started by `treegym.bench.runner`. What agents print goes to standard error (the worker's log), never into the answers.
When standard input closes, because the benchmark ended, was interrupted or was killed, the worker ends at once: a job
under way leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from treegym.files import FULL, leave_at_once
from treegym.registry import hearsay

__all__ = ["answer_to", "main"]


def main() -> None:
    """Serves jobs until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's to handle; it closes our input
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        request = json.loads(jobs.get())
        answers.write(json.dumps(answer_to(request)) + "\n")


def _listen(jobs: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    leave_at_once(0)


def answer_to(request: dict[str, Any]) -> dict[str, Any]:
    """Executes the job of a request; what goes wrong is an answer, too."""
    from treegym.bench.execute import execute
    from treegym.bench.suite import Job
    from treegym.errors import StorageError, TreeGymError

    job = Job.from_json(request["job"])
    try:
        _seed_globals(job.seed)
        source = request.get("source")
        with hearsay(source or "", request["job"] if source else None):
            summary = execute(job, out=Path(request["out"]))
        return {"id": job.id, "score": summary["final"]["score"], "cost": summary["cost"]}
    except StorageError as error:  # no other run could be saved either
        reason = getattr(error.__cause__, "strerror", None) or str(error)
        return {"id": job.id, "error": reason, "disk": True}
    except TreeGymError as error:
        return {"id": job.id, "error": str(error)}
    except OSError as error:
        _log_error()
        fatal = error.errno in FULL
        return {"id": job.id, "error": f"{error.strerror or error}", "disk": fatal}
    except Exception as error:  # noqa: BLE001 - a user's agent may raise anything; the run is reported as failed
        _log_error()
        return {"id": job.id, "error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


def _log_error() -> None:
    """Writes the traceback of what failed to the log, if the disk still takes it."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def _seed_globals(seed: int) -> None:
    """Seeds the global generators: ours are never used, but agents from outside may draw from them."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(seed)
        torch.set_num_threads(1)


if __name__ == "__main__":
    main()
