"""An environment of one's own, in a module beside the suite: benchmarked, trained in, evaluated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from treegym.__main__ import main
from treegym.registration import find_spec, full_id

MODULE = '''
import gymnasium as gym
import numpy as np


class Corridor(gym.Env):
    """A walk to the right."""

    def __init__(self, size=5):
        self.size, self.at = size, 0
        self.observation_space = gym.spaces.Box(0, 1, (size,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return np.eye(self.size, dtype=np.float32)[0], {}

    def step(self, action):
        self.at += int(action)
        done = self.at == self.size - 1
        return np.eye(self.size, dtype=np.float32)[self.at], float(done), done, False, {"is_success": done}


gym.register("Corridor-v0", Corridor, max_episode_steps=20)
'''
SUITE = """
name = "own"
seeds = [0]
budget = { env_steps = 300 }
checkpoints = 1
[evaluation]
episodes = 5
[[envs]]
id = "corridors:Corridor-v0"
metric = "return"
num_envs = 4
[[agents]]
agent = "ppo"
kwargs = { n_episodes = 16 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "corridors.py").write_text(MODULE)
    (tmp_path / "own.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "corridors", raising=False)
    return tmp_path


def test_own_environments_are_benchmarked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--suite", "own.toml", "--out", "out", "--workers", "1", "--json"]) == 0
    board = json.loads(capsys.readouterr().out)
    assert board["failed"] == {}
    assert board["prompts"] == {"corridors:Corridor-v0": 5}
    assert main(["bench", "verify", "out"]) == 1  # a folder may come from a stranger: it names, nothing is imported
    assert "'corridors:Corridor-v0', which a file cannot make us use: add --trust" in capsys.readouterr().err
    assert main(["bench", "verify", "out", "--trust"]) == 0


def test_own_environments_are_trained_in_and_checkpoints_keep_the_module(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--steps", "100", "--set", "n_episodes=8", "--json"]
    assert main(["train", "ppo", "--env", "corridors:Corridor-v0", "--out", "run", *arguments]) == 0
    capsys.readouterr()
    assert main(["eval", "run/final.zip"]) == 1  # a file alone makes nothing be imported
    assert "name it yourself (--env corridors:Corridor-v0)" in capsys.readouterr().err
    assert main(["eval", "run/final.zip", "--env", "corridors:Corridor-v0", "--episodes", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["episodes"] == 3
    assert result["split"] is None


def test_environments_of_gymnasium_are_trained_in_and_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    arguments = ["--steps", "100", "--set", "n_episodes=4", "--json"]
    assert main(["train", "ppo", "--env", "CartPole-v1", "--out", out, *arguments]) == 0
    capsys.readouterr()
    assert main(["eval", f"{out}/final.zip", "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["return"]["mean"] > 0


@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        ("corridor:Corridor-v0", "corridor failed to import: ModuleNotFoundError"),
        ("corridors:Corridoor-v0", "unknown environment 'corridors:Corridoor-v0'"),
        ("TokenTre-v0", "Did you mean 'TokenTree-v0'"),
    ],
)
def test_environments_that_are_not_there_are_named(
    folder: Path, env_id: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "ppo", "--env", env_id, "--out", "run"]) == 1
    assert said in capsys.readouterr().err


def test_full_ids() -> None:
    for env_id in ("CartPole-v1", "TokenTree-v0"):
        assert full_id(find_spec(env_id)) == env_id
