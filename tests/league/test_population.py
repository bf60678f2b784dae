from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from treegym.__main__ import main
from treegym.integrations.optuna import SPACES, Range
from treegym.population import Population, changed, drawn

TREE = "tree=synthetic:roots=60,depth=4,branching=3,difficulty=0.2,seed=0"
TUNE = ["tune", "dapo", "--scheduler", "pbt", "--env-arg", TREE, "--steps", "3000", "--rungs", "3", "--trials", "4"]


@pytest.mark.parametrize("agent", SPACES)
def test_changed_settings_stay_within_the_space(agent: str) -> None:
    rng = np.random.default_rng(0)
    settings = drawn(agent, rng)
    for _ in range(50):
        before, settings = settings, changed(agent, settings, rng)
        for name, part in SPACES[agent].items():
            value = settings[name]
            assert part.low <= value <= part.high if isinstance(part, Range) else value in part.values
            assert type(value) is type(before[name])


def test_the_worst_go_on_from_the_best_with_changed_settings() -> None:
    population = Population("dapo", 4, seed=0)
    first = [life.segments[0] for life in population.lives]
    population.take([0.5, 0.9, math.nan, 0.6], 40, last=False)  # a quarter of 4 is 1: place 2 copies place 1
    assert population.from_whom == [0, 1, 1, 3]
    assert [life.seed for life in population.lives] == [0, 1, 1, 3]
    assert population.lives[2].segments[0] == first[1]
    assert population.lives[2].segments[1] != first[1]
    assert population.lives[0].segments == [first[0], first[0]]
    again = Population.of(json.loads(json.dumps(population.as_json())))
    assert again.as_json() == population.as_json()
    population.take([0.1, 0.2, 0.8, 0.3], 40, last=True)
    assert population.best() == 2
    assert len(population.lives[2].segments) == 2
    assert population.steps == 80


def test_a_schedule_is_replayed_to_the_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tuned.toml"
    assert main([*TUNE, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    schedule = json.loads((tmp_path / "tuned.schedule.json").read_text())
    assert len(schedule["life"]["segments"]) == 3
    assert found["env_steps"] == schedule["env_steps"] >= 4 * 3000  # of all members
    assert f"{found['env_steps']} environment steps in all" in out.read_text()
    assert not (tmp_path / "tuned.toml.tuning").exists()
    replay = ["tune", "--replay", str(tmp_path / "tuned.schedule.json"), "--out", str(tmp_path / "again.zip"), "--json"]
    assert main(replay) == 0  # raises where the weights are others
    assert json.loads(capsys.readouterr().out)["score"] == found["score"]
    assert main(["train", "--config", str(out), "--steps", "512", "--out", str(tmp_path / "run"), "--json"]) == 0
    capsys.readouterr()
    schedule["life"]["segments"][1]["learning_rate"] *= 1.5
    (tmp_path / "tuned.schedule.json").write_text(json.dumps(schedule))
    assert main(replay) == 1
    assert "its weights are others than those of the search" in capsys.readouterr().err
    (tmp_path / "tuned.schedule.json").write_text(json.dumps({**schedule, "rungs": 0}))
    assert main(replay) == 1
    assert "rungs is 0; it must be a whole number of at least 1" in capsys.readouterr().err
    (tmp_path / "tuned.schedule.json").write_text('{"format": "treegym.schedule"}')
    assert main(replay) == 1
    assert "is no schedule of `treegym tune --scheduler pbt`" in capsys.readouterr().err


def test_a_search_that_was_interrupted_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    little = [*TUNE[:-4], "--rungs", "2", "--trials", "2", "--json"]
    assert main([*little, "--out", str(tmp_path / "whole.toml")]) == 0
    whole = json.loads(capsys.readouterr().out)
    real = Population.take

    def cut(population: Population, scores: list[float], steps: int, *, last: bool) -> None:
        if last:
            raise KeyboardInterrupt
        real(population, scores, steps, last=last)

    with monkeypatch.context() as patch:
        patch.setattr(Population, "take", cut)
        assert main([*little, "--out", str(tmp_path / "cut.toml")]) != 0
    assert (tmp_path / "cut.toml.tuning" / "population.json").is_file()
    capsys.readouterr()
    assert main([*little, "--out", str(tmp_path / "cut.toml"), "--seed", "5"]) == 1
    assert "holds a search with other settings" in capsys.readouterr().err
    assert main([*little, "--out", str(tmp_path / "cut.toml")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["score"], again["settings"], again["env_steps"]) == (
        whole["score"], whole["settings"], whole["env_steps"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tune"], "name an agent to tune, or a schedule"),
        ([*TUNE, "--trials", "1"], "a population has at least 2 members"),
        (["tune", "--replay", "/nowhere.json"], "/nowhere.json"),
    ],
)
def test_what_cannot_be_searched_is_told(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *(["--out", str(tmp_path / "t.toml")] if "--replay" not in words else [])]) == 1
    assert said in capsys.readouterr().err
