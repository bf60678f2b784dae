from __future__ import annotations

import json
from pathlib import Path

import pytest

from treegym.__main__ import main

pytestmark = pytest.mark.ray
TREE = "tree=synthetic:roots=40,depth=4,branching=3,seed=0"


def test_tuned_settings_are_what_train_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    out = tmp_path / "tuned.toml"
    told = ["--env-arg", TREE, "--steps", "1024", "--trials", "3", "--rungs", "2", "--out", str(out), "--json"]
    assert main(["tune", "dapo", *told]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trials"], found["failed"]) == (3, 0)
    assert 0.0 <= found["score"] <= 1.0
    assert found["env_steps"] >= 1024
    assert out.read_text().startswith(f"# {found['score']:.4f} on validation prompts: the best of 3 trials")
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.toml"]
    assert main(["train", "--config", str(out), "--steps", "512", "--out", str(tmp_path / "run"), "--json"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["random"], "no space of settings for 'random'"),
        (["ppo", "--trials", "0"], "--trials is 0"),
        (["ppo", "--out", "/nowhere/at/all.toml"], "is not a folder"),
        (["ppo", "--ray", "127.0.0.1:1"], "nobody answers"),
    ],
)
def test_what_cannot_be_tuned_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *words]) == 1
    assert said in capsys.readouterr().err
