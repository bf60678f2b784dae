"""What the hostile tests share: a checkpoint to damage, and a way to run code under a limit on memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.files import read_arrays, write_arrays

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30


class Checkpoint:
    """A checkpoint taken apart, to be put together again with something else in it."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            self.data: dict[str, Any] = json.loads(archive.read("data.json"))
            part = path.with_suffix(".safetensors")
            part.write_bytes(archive.read("arrays.safetensors"))
        self.arrays = {name: np.array(array) for name, array in read_arrays(part)[0].items()}
        self.folder = path.parent

    def written(self, name: str = "bad.zip", **members: bytes) -> Path:
        """Returns the path of a checkpoint of what is in here now; `members` replace whole parts."""
        part = self.folder / "part.safetensors"
        write_arrays(part, self.arrays)
        path = self.folder / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.json", members.get("data", json.dumps(self.data).encode()))
            archive.writestr("arrays.safetensors", members.get("arrays", part.read_bytes()))
        return path


def run_limited(
    code: str, *, gib: float = 3.0, seconds: float = 120.0, **values: Any
) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process of its own that may address so much memory; `values` are names it can use."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * GIB), int(gib * GIB)))

    start = f"import json, sys\nglobals().update(json.loads({json.dumps(json.dumps(values))}))\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", start + code], env=environment, preexec_fn=limit, capture_output=True, text=True,
        timeout=seconds,
    )  # fmt: skip


@pytest.fixture(scope="session")
def apart() -> type[Checkpoint]:
    return Checkpoint


@pytest.fixture
def limited() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_limited
