"""Nodes, the command and the head are killed at random moments (TREEGYM_RAY_KILLS each): the results are the same."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.bench.results import ResultFolder

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("TREEGYM_RAY_KILLS", "2"))
SUITE = """
name = "kills"
seeds = [0, 1, 2, 3, 4, 5]
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
name = "Learner"
agent = "contestants:Learner"
"""


def _start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "treegym", "bench", "--suite", str(out.parent / "kills.toml"), "--out", str(out)]
    return subprocess.Popen(
        [*command, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _finish(command: subprocess.Popen[str]) -> int:
    _, said = command.communicate(timeout=280)
    print(command.returncode, said[-500:])
    return command.returncode


def _outcomes(folder: Path) -> dict[str, Any]:
    """Returns the bytes of all episodes, and of the summaries what does not depend on the clock."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in (folder / "runs").glob("*.gz")}
    for summary in ResultFolder(folder).summaries():
        curve = [{k: v for k, v in point.items() if k != "cpu_seconds"} for point in summary["curve"]]
        found[f"{summary['agent']} {summary['seed']}"] = [summary["final"], summary["training"], curve]
    return found


@pytest.mark.timeout(3600)
def test_whatever_is_killed_whenever_the_results_are_the_same(nodes: Any, tmp_path: Path) -> None:
    (tmp_path / "kills.toml").write_text(SUITE)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert _finish(_start(whole, "--workers", "2")) == 0
    expected = _outcomes(whole)
    started = time.monotonic()
    assert _finish(_start(out, "--ray", nodes.address)) == 0
    length = time.monotonic() - started
    assert _outcomes(out) == expected
    rng = np.random.default_rng(KILLS)
    for number, victim in enumerate([*["node", "command"] * KILLS, "head"]):
        moment = float(rng.uniform(0, length))
        out = tmp_path / f"{victim}-{number}"
        command = _start(out, "--ray", nodes.address)
        time.sleep(moment)
        if victim == "node":
            name = list(nodes.nodes)[-1]
            nodes.kill(name)
            nodes.add(f"after-{number}")
        elif victim == "command":
            command.kill()
        else:
            nodes.kill_head()
        code = _finish(command)
        if code != 0:
            assert victim != "node"
            assert _finish(_start(out, *(("--workers", "2") if victim == "head" else ("--ray", nodes.address)))) == 0
        assert _outcomes(out) == expected, f"{victim} killed after {moment:.2f} of {length:.2f} s"
