from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from treegym.errors import ConfigError
from treegym.iterate import IterateSettings, iterate

ROOT = Path(__file__).parents[2]
ROUNDS = ["iterate", "--rounds", "2", "--evaluate", "bundled:test=8", "--prompts", "bundled:train=40", "--actors", "2"]
DAPO = ["--algorithm", "dapo", "--steps", "1500"]
OPTIONS = "options = { n_episodes = 64, group_size = 8 }\n"


def _start(out: Path, *words: str) -> subprocess.Popen[str]:
    config = out.with_suffix(".toml")
    config.write_text(OPTIONS)
    command = [sys.executable, "-m", "treegym", *ROUNDS, *words, "--config", str(config), "--out", str(out)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finished(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    return said


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 150
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


def _bytes_of(out: Path) -> dict[str, bytes]:
    wanted = ("row.json", "model.safetensors", "tree.tree")
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.name in wanted}


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_shares_on_a_cluster_come_to_the_bytes_of_those_here(nodes: Any, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    _finished(_start(here, *DAPO))
    expected = _bytes_of(here)
    assert len(expected) >= 5  # three rows and two models
    command = _start(there, *DAPO, "--ray", nodes.address)
    _wait_for(there / "round-001" / "row.json")
    command.kill()  # the learner, in its second round
    command.communicate()
    command = _start(there, *DAPO, "--ray", nodes.address)
    time.sleep(8)  # about when actors are at work, or are being made
    nodes.kill("two")
    _finished(command)
    assert _bytes_of(there) == expected


def test_shares_of_the_expert_come_to_the_whole(tmp_path: Path) -> None:
    common: dict[str, Any] = {
        "tree": "bundled", "algorithm": "expert", "rounds": 1, "evaluate": "bundled:test=4", "simulations": 8,
        "epochs": 1,
    }  # fmt: skip
    iterate(IterateSettings(**common), tmp_path / "one")
    iterate(IterateSettings(**common, actors=3), tmp_path / "three")
    assert _bytes_of(tmp_path / "one") == _bytes_of(tmp_path / "three")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"algorithm": "dpo", "actors": 2}, "dpo answers prompts with the weights it has just learned"),
        ({"actors": 0}, "actors is 0"),
    ],
)
def test_settings_that_cannot_be_shared_are_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        IterateSettings(**settings)


def test_shares_that_are_not_whole_are_told(tmp_path: Path) -> None:
    settings = IterateSettings(actors=3, rounds=1, steps=200, evaluate="bundled:test=2", prompts="bundled:train=8")
    with pytest.raises(ConfigError, match="n_episodes is 256; 3 actors each take an equal share"):
        iterate(settings, tmp_path)
