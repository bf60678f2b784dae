from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from treegym.__main__ import main

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
GROWTH = ["grow", "--prompts", "bundled:train=40,validation=0,test=0", "--shard", "2", "--threads", "1", "--quiet"]


def _start(out: Path, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "treegym", *GROWTH, "--out", str(out), "--ray", address]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _wait_for_shards(out: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while len(list(out.with_name(out.name + ".growing").glob("shard-*.tree"))) < count:
        assert time.monotonic() < deadline, "too few shards were grown"
        time.sleep(0.01)


def test_killed_and_with_a_node_lost_a_growth_ends_in_the_bytes_of_one_here(nodes: Any, tmp_path: Path) -> None:
    here, there = tmp_path / "here.tree", tmp_path / "there.tree"
    assert main([*GROWTH, "--out", str(here)]) == 0
    command = _start(there, nodes.address)
    _wait_for_shards(there, 2)
    command.kill()
    command.communicate()
    assert not there.exists()
    command = _start(there, nodes.address)
    _wait_for_shards(there, 6)
    nodes.kill("two")
    _, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    assert there.read_bytes() == here.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("there")] == ["there.tree"]


def test_a_worker_with_another_model_than_the_growth_began_with_is_refused() -> None:
    from treegym.__main__ import build_parser
    from treegym.commands.grow_cluster import grower
    from treegym.errors import DataError

    args = build_parser("grow").parse_args(["grow", "--teacher", "tiny-llama"])
    models = {"primary": {"name": "tiny-primary", "fingerprint": "other"}, "teacher_models": [{"fingerprint": ""}]}
    options = {name: value for name, value in vars(args).items() if not callable(value)}
    with pytest.raises(DataError, match="tiny-primary is another model here than where the growth began"):
        grower({"args": options, "bundled": True, "models": models})
