from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treegym.__main__ import main

pytestmark = pytest.mark.ray
LEAGUE = ["league", "dapo", "--env-arg", "tree=synthetic:roots=60,depth=4,branching=3,difficulty=0.2,seed=0", "--mains"]
LEAGUE += ["2", "--exploiters", "1", "--generations", "2", "--steps", "1500", "--json", "--set", "n_episodes=64"]


def test_a_league_on_a_cluster_is_that_of_one_machine(
    nodes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert main([*LEAGUE, "--out", str(here)]) == 0
    assert main([*LEAGUE, "--out", str(there), "--ray", nodes.address]) == 0
    assert json.loads((there / "league.json").read_text()) == json.loads((here / "league.json").read_text())


def test_a_cluster_that_does_not_answer_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LEAGUE, "--out", str(tmp_path / "out"), "--ray", "127.0.0.1:1"]) == 1
    assert "nobody answers" in capsys.readouterr().err


def test_a_population_on_a_cluster_is_that_of_one_machine(
    nodes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = ["tune", "dapo", "--scheduler", "pbt", *LEAGUE[2:4], "--steps", "2000", "--rungs", "2", "--trials", "2"]
    for place, words in (("here", []), ("there", ["--ray", nodes.address])):
        assert main([*tune, *words, "--out", str(tmp_path / f"{place}.toml")]) == 0
    assert (tmp_path / "there.schedule.json").read_bytes() == (tmp_path / "here.schedule.json").read_bytes()
