"""What a run refuses before it begins, and what a first start that failed leaves behind."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

import treegym.iterate.loop as loop
from treegym.__main__ import build_parser, main
from treegym.errors import ConfigError, DataError, TreeGymError
from treegym.iterate import IterateSettings, iterate
from treegym.iterate.kinds import LARGEST_SEED
from treegym.iterate.settings import load_settings

GOOD: list[dict] = [{"prompt": "61-48+8=", "answer": "21"}, {"prompt": "2+3=", "answer": 5}]


def _jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def _settings(tmp_path: Path, **changes: object) -> IterateSettings:
    good = _jsonl(tmp_path / "good.jsonl", GOOD)
    common: dict = {"algorithm": "ppo", "rounds": 1, "steps": 100, "prompts": good, "evaluate": good}
    return IterateSettings(**{**common, **changes})


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was evaluated")

    monkeypatch.setattr(loop, "evaluate_model", refuse)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("which", ["prompts", "evaluate"])
@pytest.mark.parametrize(
    "rows", [[{"prompt": "2+3="}], [*GOOD, {"prompt": "2+3="}], [{"prompt": "2+3=", "answer": " "}]]
)
def test_prompts_without_answers_are_refused_first(tmp_path: Path, which: str, rows: list[dict]) -> None:
    path = _jsonl(tmp_path / "some.jsonl", rows)
    with pytest.raises(DataError, match=rf"some\.jsonl: prompt {len(rows)} \('2\+3='\) has no answer"):
        iterate(_settings(tmp_path, **{which: path}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"clip_rnge": 0.1}}, "clip_range"),
        ({"options": {"n_episodes": "x"}}, "n_episodes|options"),
        ({"ground": "tree", "reward": {"nope": 1.0}}, "nope"),
        ({"prompts": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_switches_rewards_and_sources_are_checked_first(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(TreeGymError, match=said) as caught:
        iterate(_settings(tmp_path, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1},
        {"seed": "x"},
        {"seed": True},
        {"seed": LARGEST_SEED + 1},
        {"learning_rate": float("nan")},
        {"learning_rate": -1.0},
        {"learning_rate": "x"},
        {"imitation_rate": -1.0},
        {"imitation_rate": float("nan")},
        {"imitation_rate": float("inf")},
        {"imitation_rate": "x"},
        {"reference": -5},
        {"reference": "many"},
        {"anchor": "x"},
        {"anchor": float("nan")},
        {"options": 3},
        {"options": {"seed": 4}},
        {"policy": 3},
        {"policy": {"model": "tiny-llama"}},
        {"teachers": "tiny-llama"},
        {"model": 3},
        {"prompts": 3},
        {"evaluate": ""},
        {"tree": 3},
        {"grow": "yes"},
        {"growth": 3},
    ],
)
def test_values_of_wrong_kinds_are_one_sentence(changes: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))) as caught:
        IterateSettings(**changes)
    assert "\n" not in str(caught.value)


def test_rates_may_be_schedules_and_zero() -> None:
    assert IterateSettings(learning_rate="lin_3e-4").learning_rate == "lin_3e-4"
    assert IterateSettings(learning_rate=0.0, anchor=0, reference=0).reference == 0


def test_a_reward_on_free_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="rewards of free text are the verdict"):
        IterateSettings(algorithm="ppo", reward={"length": -1.0})
    assert IterateSettings(algorithm="ppo", ground="tree", reward={"length": -1.0}).on_tree


def test_names_of_search_mean_expert() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'expert'"):
        IterateSettings(algorithm="alphazero")


def test_settings_may_change_until_a_round_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    with pytest.raises(TreeGymError):
        iterate(_settings(tmp_path, model="nofolder"), out)
    assert json.loads((out / "settings.json").read_text())["model"] == "nofolder"

    def stop(*_: object, **__: object) -> None:
        raise ConfigError("stopped in round 1")

    monkeypatch.setattr(loop, "_round", stop)
    evaluated: list[int] = []
    monkeypatch.setattr(
        loop, "_evaluate", lambda settings, model, whole: evaluated.append(settings.max_tokens) or _figures()
    )
    for changes in ({}, {"steps": 200}, {"max_tokens": 8}):
        with pytest.raises(ConfigError, match="stopped in round 1"):
            iterate(_settings(tmp_path, **changes), out)
    assert evaluated == [24, 8]  # round 0 stands where it would come out the same
    assert json.loads((out / "settings.json").read_text())["max_tokens"] == 8

    (out / "round-001").mkdir()
    (out / "round-001" / "row.json").write_text(json.dumps({"round": 1, "reward": 0.5, **_figures()}))
    with pytest.raises(ConfigError, match="another steps"):
        iterate(_settings(tmp_path, max_tokens=8, steps=300), out)


def _figures() -> dict:
    return {"accuracy": 0.5, "low": 0.0, "high": 1.0, "by_kind": {}, "mean_tokens": 3.0, "prompts": 2}


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_damaged_settings_are_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text(text)
    with pytest.raises(DataError, match=r"settings\.json: damaged"):
        iterate(_settings(tmp_path), tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[1]", "{}"])
def test_damaged_rows_are_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "round-000").mkdir()
    (tmp_path / "round-000" / "row.json").write_text(text)
    with pytest.raises(DataError, match=r"row\.json: no row of figures"):
        loop.rows_of(tmp_path)


def _parsed(*words: str) -> argparse.Namespace:
    return build_parser("iterate").parse_args(["iterate", *words])


def test_flags_of_zero_override_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text('seed = 5\nanchor = 0.5\nalgorithm = "ppo"\nground = "tree"\n')
    seen: list[IterateSettings] = []
    monkeypatch.setattr(loop, "iterate", lambda settings, out, **_: seen.append(settings) or [])
    for words in (["--seed", "0", "--anchor", "0"], []):
        args = _parsed("--config", str(tmp_path / "run.toml"), "--out", str(tmp_path / "run"), *words)
        assert args.run(args) == 0
    assert [(settings.seed, settings.anchor) for settings in seen] == [(0, 0.0), (5, 0.5)]
    assert load_settings(None, {"seed": None}).seed == 0


def test_eval_refuses_no_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "random", "--episodes", "0"]) == 1
    assert "--episodes is 0; it must be at least 1" in capsys.readouterr().err
