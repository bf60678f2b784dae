"""Agents and policies from outside: named by an import path or an entry point, trained, saved, read back, evaluated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from treegym.__main__ import main
from treegym.agents import PPO
from treegym.errors import ConfigError

TREE = "tree=synthetic:roots=20,depth=4,branching=3,seed=0"

MODULE = '''
import numpy as np
from treegym.agents.policies.child import ChildPolicy
from treegym.agents.ppo import PPO


class Quiet(ChildPolicy):
    """A policy of somebody's own."""


class Cousin(PPO):
    """A learner of somebody's own."""


class Last:
    """Takes the last legal child; needs no training."""

    def __init__(self, env, *, seed=None):
        self.layout = env.unwrapped.layout

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        mask = np.asarray(observation["action_mask"])
        return mask.shape[-1] - 1 - mask[..., ::-1].argmax(-1), state


class Counts:
    """Learns by counting steps, and writes the count down."""

    def __init__(self, env, *, seed=None):
        self.env, self.count = env, 0

    def learn(self, total_timesteps):
        self.count = total_timesteps

    def save(self, path):
        path.write_text(str(self.count))

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.asarray(observation["action_mask"]).argmax(-1), state
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a module and a package's entry points on the path; returns a folder."""
    (tmp_path / "somebodys.py").write_text(MODULE)
    info = tmp_path / "somebodys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[treegym.agents]\ncousin = somebodys:Cousin\n[treegym.policies]\nquiet = somebodys:Quiet\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("somebodys", None)


def _cli(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out.splitlines()[-1])


SHORT = ["--set", "n_envs=8", "--set", "n_episodes=16", "--env-arg", TREE]


@pytest.mark.parametrize("policy", ["quiet", "somebodys:Quiet"])
@pytest.mark.parametrize("agent", ["cousin", "somebodys:Cousin"])
def test_they_train_and_are_evaluated(
    outside: Path, agent: str, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(outside / "run")
    _cli("train", agent, "--policy", policy, "--steps", "40", "--out", out, *SHORT, capsys=capsys)
    _cli("train", agent, "--policy", policy, "--steps", "80", "--out", out, "--resume", *SHORT, capsys=capsys)
    found = _cli("eval", f"{out}/final.zip", capsys=capsys)
    again = _cli("eval", f"{out}/final.zip", "--algorithm", agent, "--policy", policy, capsys=capsys)
    assert found == again
    assert found["episodes"]


def test_agents_without_a_policy_take_part(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli("eval", "somebodys:Last", "--env-arg", TREE, capsys=capsys)["episodes"]
    found = _cli("train", "somebodys:Counts", "--steps", "7", "--out", str(outside / "c"), capsys=capsys)
    assert Path(str(found["checkpoint"])).read_text() == "7"
    assert main(["train", "somebodys:Last", "--out", str(outside / "l")]) != 0
    assert "does not learn" in capsys.readouterr().err


def test_a_file_imports_nothing_on_its_word(outside: Path, tree_env: gym.Env) -> None:
    """What an unregistered policy is called is written down; the module is imported only when the caller names it."""
    PPO("somebodys:Quiet", tree_env, n_envs=4, seed=0).save(outside / "known.zip")
    info = outside / "somebodys-1.0.dist-info"
    assert PPO.load(outside / "known.zip").policy_name == "somebodys:Quiet"  # an entry point leads to it
    (info / "entry_points.txt").unlink()
    sys.modules.pop("somebodys")
    with pytest.raises(ConfigError, match="a file cannot make us import"):
        PPO.load(outside / "known.zip")
    assert "somebodys" not in sys.modules
    with pytest.raises(ConfigError, match="which stays"):
        PPO.load(outside / "known.zip", policy="ChildPolicy")
    named = PPO.load(outside / "known.zip", policy="somebodys:Quiet")
    from somebodys import Quiet  # type: ignore[import-not-found]

    assert isinstance(named.policy, Quiet)
    assert isinstance(PPO.load(outside / "known.zip", policy=Quiet).policy, Quiet)


def test_what_is_no_policy_is_refused(tree_env: gym.Env) -> None:
    with pytest.raises(ConfigError, match="not a subclass"):
        PPO("stable_baselines3.common.policies:ActorCriticPolicy", tree_env)
