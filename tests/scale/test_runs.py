from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray


def _wait_for_runs(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(_summaries(folder)) < count:
        assert time.monotonic() < deadline, "too few runs ended"
        time.sleep(0.01)


def _summaries(folder: Path) -> list[Path]:
    return list((folder / "runs").glob("*.json"))


def test_losing_a_node_the_command_and_the_head_loses_no_run(nodes: Any, bench: Any, tmp_path: Path) -> None:
    little = bench(seeds=2, agents="Chance Prior Learner")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert little.finish(little.start(whole, "--workers", "2"))[0] == 0

    command = little.start(cut, "--ray", nodes.address)  # the command itself is killed
    _wait_for_runs(cut, 1)
    command.kill()
    little.finish(command)
    kept = {path: path.stat().st_mtime_ns for path in _summaries(cut)}
    assert 1 <= len(kept) < 6

    command = little.start(cut, "--ray", nodes.address)  # then a node, in the middle of its run
    _wait_for_runs(cut, len(kept) + 1)
    nodes.kill("two")
    code, out, err = little.finish(command)
    assert code == 0, err
    assert json.loads(out)["failed"] == {}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert little.outcomes(cut) == little.outcomes(whole)

    late = tmp_path / "late"  # and the head, for good
    command = little.start(late, "--ray", nodes.address)
    _wait_for_runs(late, 2)
    nodes.kill_head()
    code, _, err = little.finish(command)
    assert code == 1
    assert "no longer answers; what was finished is kept" in err.splitlines()[-1]
    assert little.finish(little.start(late, "--workers", "2"))[0] == 0
    assert little.outcomes(late) == little.outcomes(whole)
