"""`treegym train` and `treegym compare` day to day: settings files, validation, plateaus, several seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from treegym.__main__ import main
from treegym.agents import PPO
from treegym.agents.callbacks import ValidationCallback
from treegym.display import curve

TREE = 'env_args = { tree = "synthetic:roots=30,depth=3,branching=2,difficulty=0.1,seed=1" }\n'


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_settings_file_and_flags_that_go_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(
        tmp_path / "run.toml", 'agent = "ppo"\nsteps = 300\nswitches = { n_episodes = 32, n_epochs = 1 }\n' + TREE
    )
    assert main(["train", "--config", config, "--steps", "200", "--json", "--out", str(tmp_path / "run")]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["steps"] >= 200
    settings = PPO.load(told["checkpoint"]).settings
    assert (settings.n_episodes, settings.n_epochs) == (32, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('agnt = "ppo"', "unknown setting 'agnt'. Did you mean 'agent'?"),
        ('steps = "many"', "steps is 'many'; a whole number was expected"),
        ("patience = 3", "--patience counts validations"),
        ("steps = 0", "--steps must be at least 1"),
        ("switches = { num_simulations = 4 }", "PPO has no switch 'num_simulations'"),
        ("steps = ", "not valid TOML"),
    ],
)
def test_bad_settings_get_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    config = write(tmp_path / "run.toml", text + "\n")
    assert main(["train", "--config", config, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_plateau_needs_validation_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--eval-every", "100", "--patience", "1", "--env-arg", "tree=synthetic:roots=6,depth=3,seed=1"]
    assert main(["train", "--out", str(tmp_path / "run"), *asked]) == 1
    assert "has no roots in split 'validation'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("env", [[], ["--env", "CartPole-v1", "--set", "n_envs=2"]], ids=["tree", "cart"])
def test_walks_are_drawn_as_pictures_that_move(tmp_path: Path, env: list[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    tree = ["--env-arg", "tree=synthetic:roots=30,depth=3,branching=2,difficulty=0.1,seed=1"] if not env else []
    words = ["--steps", "96", "--walks-every", "48", "--set", "n_episodes=16", "--set", "n_epochs=1", *env, *tree]
    assert main(["train", "ppo", *words, "--out", str(tmp_path / "run")]) == 0
    drawn = sorted((tmp_path / "run" / "walks").iterdir())
    assert drawn[0].name == "step-000000000000.gif"  # before anything is learned
    assert len(drawn) >= 2
    assert all(path.suffix == ".gif" for path in drawn)
    with image.open(drawn[-1]) as picture:
        assert 2 <= picture.n_frames <= 5 if not env else picture.n_frames > 5  # three tokens and an end; many pushes


class Unseen(gym.Env):
    """A world that draws nothing."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)


def test_a_world_that_draws_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gym.register("Unseen-v0", entry_point=Unseen)
    assert main(["train", "--env", "Unseen-v0", "--walks-every", "9", "--out", str(tmp_path / "run")]) == 1
    assert "Unseen-v0 draws no pictures (its render modes: none)" in capsys.readouterr().err
    gym.registry.pop("Unseen-v0")


class Scripted:
    """A validation whose scores were written down before."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = iter(scores)

    def __call__(self, agent: Any) -> float:
        return next(self.scores)


def test_training_ends_when_nothing_improves_and_goes_on_where_it_was(tmp_path: Path) -> None:
    made: dict[str, Any] = {"seed": 0, "n_episodes": 16, "n_epochs": 1}
    env = "TokenTree-v0"
    # 0.5 is not beaten by the next two: training ends after the third validation
    validated = ValidationCallback(tmp_path, every=1, validate=Scripted([0.5, 0.4, 0.5, 0.9]), patience=2)
    agent = PPO("ChildPolicy", env, **made).learn(100_000, callback=validated, log_interval=0)
    assert validated.scores == [0.5, 0.4, 0.5]
    assert agent.num_timesteps < 100_000
    assert json.loads((tmp_path / "best.json").read_text()) == {"score": 0.5, "steps": validated.steps[0]}
    agent.save(tmp_path / "last.zip")
    again = ValidationCallback(tmp_path, every=1, validate=Scripted([0.6, 0.5]), patience=3)
    resumed = PPO.load(tmp_path / "last.zip", env=env)
    resumed.learn(1, callback=again, reset_num_timesteps=False, log_interval=0)
    assert again.scores[:3] == [0.5, 0.4, 0.5]
    assert PPO.load(tmp_path / "best.zip").num_timesteps == again.steps[3]


def test_several_seeds_each_in_a_folder_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = write(
        tmp_path / "run.toml", "steps = 100\neval_every = 50\nswitches = { n_episodes = 16, n_epochs = 1 }\n" + TREE
    )
    out = tmp_path / "runs"
    assert main(["train", "--config", config, "--seeds", "3,5", "--jobs", "2", "--json", "--out", str(out)]) == 0
    assert json.loads(capfd.readouterr().out) == {"folders": [str(out / "seed-3"), str(out / "seed-5")]}
    first, second = (PPO.load(out / f"seed-{seed}" / "final.zip") for seed in (3, 5))
    assert (first.seed, second.seed) == (3, 5)
    compared = [str(out / f"seed-{seed}" / "best.zip") for seed in (3, 5)]
    assert main(["compare", *compared, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["episodes"] == 9  # three in ten of thirty prompts are held out
    assert told["difference"]["mean"] == pytest.approx(told["second"] - told["first"])
    assert main(["train", "--config", config, "--seeds", "3", "--out", str(out)]) == 1
    assert "seeds 3" in capfd.readouterr().err  # its folder holds checkpoints already
    assert "add --resume" in (out / "seed-3" / "train.log").read_text()


def test_an_agent_is_level_with_itself(capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--env-arg", "tree=synthetic:roots=30,depth=3,seed=1"]
    assert main(["compare", "greedy_prior", "greedy_prior", *where]) == 0
    said = capsys.readouterr().out
    assert "second - first +0.0000" in said
    assert "no more than chance" in said


def test_a_curve_of_bars() -> None:
    assert curve([0.0, 0.5, 1.0]) == "\u2581\u2585\u2588"
    assert curve([2.0]) == "\u2584"
    assert len(curve([0.0] * 100, width=7)) == 7
