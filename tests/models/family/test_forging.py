"""Tests of `treegym forge`: the whole pipeline in small, bad output directories, a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from treegym.errors import BackendError
from treegym.models.family.forging import forge
from treegym.models.family.specs import FAMILY

ROOT = Path(__file__).resolve().parents[3]
NAMES = {spec.name for spec in FAMILY}


def command(out: Path) -> list[str]:
    return [sys.executable, "-m", "treegym", "forge", "--quick", "--json", "--seed", "2", "--out", str(out)]


def test_an_output_that_is_a_file_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = subprocess.run(command(tmp_path / "file"), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "file: cannot be written to" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_place_where_nothing_can_be_written_ends_the_forging(tmp_path: Path) -> None:
    (tmp_path / ".forge").write_text("")  # where the models under way would lie
    with pytest.raises(
        BackendError, match=r"could not be written: Not a directory; models that were finished are kept"
    ):
        forge(tmp_path, is_quick=True, workers=1)


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_bytes(tmp_path: Path) -> None:
    whole = subprocess.run(command(tmp_path / "whole"), cwd=ROOT, capture_output=True, text=True, check=True)
    cards = json.loads(whole.stdout)["models"]
    assert {card["name"] for card in cards} == NAMES
    assert {path.name for path in (tmp_path / "whole").iterdir()} == NAMES

    parts = tmp_path / "parts"
    first = subprocess.Popen(command(parts), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(parts.glob("tiny-*/forge.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = {path.parent.name: path.stat().st_mtime_ns for path in parts.glob("tiny-*/model.safetensors")}
    assert 0 < len(kept) < len(NAMES)
    time.sleep(1)  # the orphaned processes notice that nobody listens
    subprocess.run(command(parts), cwd=ROOT, capture_output=True, text=True, check=True)
    for name in NAMES:
        weights = parts / name / "model.safetensors"
        assert weights.read_bytes() == (tmp_path / "whole" / name / "model.safetensors").read_bytes()
        assert name not in kept or weights.stat().st_mtime_ns == kept[name]
