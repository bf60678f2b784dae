from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from treegym.bench.results import ResultFolder

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
SUITE = """
name = "small"
seeds = [0, 1]
budget = { env_steps = 2000 }
checkpoints = 2
[[envs]]
name = "tiny"
id = "TokenTree-v0"
kwargs = { tree = "synthetic:roots=60,depth=4,branching=3,difficulty=0.2,seed=0" }
num_envs = 16
[[agents]]
name = "Chance"
agent = "contestants:Chance"
kwargs = { slow = 0.2 }
[[agents]]
name = "Prior"
agent = "contestants:Prior"
[[agents]]
name = "Learner"
agent = "contestants:Learner"
"""


def _start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "treegym", "bench", "--suite", str(out.parent / "small.toml"), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--json", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def _wait_for_runs(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(_summaries(folder)) < count:
        assert time.monotonic() < deadline, "too few runs ended"
        time.sleep(0.01)


def _summaries(folder: Path) -> list[Path]:
    return list((folder / "runs").glob("*.json"))


def _outcomes(folder: Path) -> dict[str, Any]:
    """Returns everything about the runs that does not depend on the clock, and the bytes of their episodes."""
    bytes_of = {path.name: path.read_bytes() for path in (folder / "runs").glob("*.gz")}
    runs = {
        summary["agent"] + str(summary["seed"]): (
            summary["episodes"], summary["training"], summary["final"], summary["fingerprint"], summary["samples"],
            [{k: v for k, v in point.items() if k != "cpu_seconds"} for point in summary["curve"]],
        )
        for summary in ResultFolder(folder).summaries()
    }  # fmt: skip
    return {**bytes_of, **runs}


def test_losing_a_node_the_command_and_the_head_loses_no_run(nodes: Any, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SUITE)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert _finish(_start(whole, "--workers", "2"))[0] == 0

    command = _start(cut, "--ray", nodes.address)  # the command itself is killed
    _wait_for_runs(cut, 1)
    command.kill()
    _finish(command)
    kept = {path: path.stat().st_mtime_ns for path in _summaries(cut)}
    assert 1 <= len(kept) < 6

    command = _start(cut, "--ray", nodes.address)  # then a node, in the middle of its run
    _wait_for_runs(cut, len(kept) + 1)
    nodes.kill("two")
    code, out, err = _finish(command)
    assert code == 0, err
    assert json.loads(out)["failed"] == {}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert _outcomes(cut) == _outcomes(whole)

    late = tmp_path / "late"  # and the head, for good
    command = _start(late, "--ray", nodes.address)
    _wait_for_runs(late, 2)
    nodes.kill_head()
    code, _, err = _finish(command)
    assert code == 1
    assert "no longer answers; what was finished is kept" in err.splitlines()[-1]
    assert _finish(_start(late, "--workers", "2"))[0] == 0
    assert _outcomes(late) == _outcomes(whole)
