"""Two contestants, each in a process of its own: a line with a job goes in, a line with its figures comes out."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Side", "serve"]

ROOT = Path(__file__).resolve().parents[1]


class Side:
    """A contestant in a process of its own.

    Args:
        script: the file beside this one that serves both sides.
        which: "ours" or "theirs".
        python: what runs it.
        log: where its messages go.
        environment: its environment variables; None: those of this process.
    """

    def __init__(
        self, script: str, which: str, *, python: Path, log: Any, environment: Mapping[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [str(python), str(ROOT / "benchmarks" / script), which],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip

    def run(self, **job: Any) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args!r} ended without an answer; its messages are in the log above")
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(**sides: Callable[..., dict[str, float]]) -> None:
    """Serves the side that the command line names; what libraries print goes to standard error: it is not an answer."""
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    answers, sys.stdout = sys.stdout, sys.stderr
    run = sides[sys.argv[1]]
    for line in sys.stdin:
        found = run(**json.loads(line))
        found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found), file=answers, flush=True)
