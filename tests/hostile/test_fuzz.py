"""Damaged files of every format: no crash, no hang, no error that is not ours, no memory beyond 1 GiB more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SEED = os.environ.get("TREEGYM_HOSTILE_SEED", "0")
COUNT = int(os.environ.get("TREEGYM_HOSTILE_COUNT", "2000"))
MINUTES = os.environ.get("TREEGYM_HOSTILE_MINUTES", "55")
KERNELS = ("tree", "checkpoint ppo", "checkpoint zero", "search", "search joined", "search of lanes")
ROOT = Path(__file__).resolve().parents[2]


def fuzzed(*words: str, seconds: float, **environment: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), "--seed", SEED, *words]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=seconds)
    assert done.stdout, done.stderr[-2000:]  # it crashed
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any], count: int) -> None:
    for name, tally in found["formats"].items():
        assert tally["failed"] == [], name
        assert tally["tried"] == count or (count > 100 and tally["tried"] > 100), name  # where the time was over
        assert tally["refused"], name
    assert found["grown_mib"] < 1024


def test_a_few_damaged_files_of_every_format() -> None:
    check(fuzzed("--count", "15", seconds=240), 15)


@pytest.mark.hostile
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("part", ["1/2", "2/2"])  # a process for each of two cores
def test_many_damaged_files_of_every_format(part: str) -> None:
    check(fuzzed("--count", str(COUNT), "--minutes", MINUTES, "--part", part, seconds=3900), COUNT)


def test_the_worst_cases_are_refused() -> None:
    """Files that crashed, hung, leaked or lied once; what is found later goes into `corpus.py`."""
    found = fuzzed("--corpus", seconds=400)
    for name, tally in found["formats"].items():
        assert tally["failed"] == [], name
        assert tally["tried"] == tally["refused"]
        assert tally["most_mib"] < 200, name
    assert sum(tally["tried"] for tally in found["formats"].values()) > 100


@pytest.mark.hostile
@pytest.mark.timeout(4000)
def test_kernels_stay_within_their_arrays(tmp_path: Path) -> None:
    """The formats that kernels walk, with every index of a kernel checked (compiled anew: this takes minutes)."""
    formats = [word for name in KERNELS for word in ("--format", name)]
    words = ["--count", str(COUNT // 10), "--minutes", "15", *formats]
    check(fuzzed(*words, seconds=3600, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)), COUNT // 10)
