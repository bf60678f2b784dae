"""What Stable-Baselines3's users do with a model, done with ours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from treegym.agents import PPO, VAPO, AlphaZero
from treegym.errors import ConfigError

FEW: dict[str, Any] = {"n_envs": 8, "n_episodes": 16, "seed": 0}


def make(spec: str) -> gym.Env:
    return gym.make("TokenTree-v0", tree=spec)


def test_tensorboard_folders_and_counting_on(tree_env: gym.Env, tmp_path: Path) -> None:
    model = PPO("ChildPolicy", tree_env, tensorboard_log=str(tmp_path), **FEW)
    first = model.learn(100, tb_log_name="mine").num_timesteps
    model.learn(100, tb_log_name="mine", reset_num_timesteps=False)
    assert model.num_timesteps >= first + 100
    assert [path.name for path in tmp_path.iterdir()] == ["mine_1"]
    model.learn(100, tb_log_name="mine")
    assert model.num_timesteps < first + 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine_1", "mine_2"]


def test_the_progress_bar_runs(tree_env: gym.Env, capfd: pytest.CaptureFixture[str]) -> None:
    model = PPO("ChildPolicy", tree_env, **FEW)
    first = model.learn(60, progress_bar=True).num_timesteps
    assert f" {first}/60 " in capfd.readouterr().out
    model.learn(70, reset_num_timesteps=False, progress_bar=True)
    assert f" {model.num_timesteps - first}/70 " in capfd.readouterr().out


def test_callbacks_of_sb3(tree_env: gym.Env, tree_spec: str, tmp_path: Path) -> None:
    model = PPO("ChildPolicy", tree_env, **FEW)
    watch = EvalCallback(
        make(tree_spec), eval_freq=10, n_eval_episodes=3, log_path=str(tmp_path), best_model_save_path=str(tmp_path),
        verbose=0, warn=False,
    )  # fmt: skip
    model.learn(400, callback=[watch, CheckpointCallback(20, str(tmp_path / "kept"))])
    assert np.load(tmp_path / "evaluations.npz")["results"].shape[1] == 3
    assert 0 < PPO.load(tmp_path / "best_model.zip").num_timesteps <= model.num_timesteps
    assert len(list((tmp_path / "kept").iterdir())) >= 2


def test_callbacks_stop_learning(tree_env: gym.Env, tree_spec: str) -> None:
    counted: list[int] = []
    model = PPO("ChildPolicy", tree_env, **FEW)
    model.learn(10**6, callback=lambda *_: counted.append(1) is not None or len(counted) < 5)
    assert len(counted) == 5
    model.learn(10**6, callback=StopTrainingOnMaxEpisodes(10))
    assert model.num_timesteps < 10**4
    stop = StopTrainingOnRewardThreshold(-1.0)
    model.learn(10**6, callback=EvalCallback(make(tree_spec), callback_on_new_best=stop, eval_freq=5, warn=False))
    assert model.num_timesteps < 10**4


def test_loggers_of_sb3(tree_env: gym.Env, tmp_path: Path) -> None:
    model = PPO("ChildPolicy", tree_env, **FEW)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(200)
    header, *lines = (tmp_path / "progress.csv").read_text().splitlines()
    assert {"rollout/ep_rew_mean", "train/approx_kl", "time/total_timesteps"} <= set(header.split(","))
    assert lines


@pytest.mark.parametrize("wrap", [lambda env: env, VecNormalize])
def test_vectors_of_sb3(wrap: Any) -> None:
    model = PPO("MlpPolicy", wrap(make_vec_env("CartPole-v1", 2, vec_env_cls=DummyVecEnv)), n_steps=32, seed=0)
    model.learn(128)
    assert model.num_timesteps == 128
    mean, _ = evaluate_policy(model, model.get_env(), 3, warn=False)
    assert mean > 0


def test_other_observations_and_vectors() -> None:
    """States that are numbers (SB3 makes them one-hot), and lanes in processes of their own."""
    model = PPO("MlpPolicy", "FrozenLake-v1", n_steps=16, n_envs=2, seed=0)
    assert model.learn(64, log_interval=0).num_timesteps == 64
    lanes = gym.vector.AsyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2)
    assert PPO("MlpPolicy", lanes, n_steps=16, seed=0).learn(64, log_interval=0).num_timesteps == 64
    lanes.close()


def test_a_model_goes_on_elsewhere(tree_env: gym.Env, tmp_path: Path) -> None:
    model = PPO("ChildPolicy", tree_env, n_episodes=16, seed=0).learn(50)
    other = "synthetic:roots=40,depth=5,branching=3,width=4,seed=9"
    model.set_env(gym.make_vec("TokenTree-v0", num_envs=5, tree=other))
    assert model.n_envs == 5
    assert model.learn(50, reset_num_timesteps=False).num_timesteps > 100
    model.save(tmp_path / "run")
    moved = PPO.load(tmp_path / "run", env=make(other))
    assert moved.learn(50, reset_num_timesteps=False).num_timesteps > model.num_timesteps
    with pytest.raises(ConfigError, match="made for another environment: its observation space"):
        model.set_env("CartPole-v1")
    with pytest.raises(ConfigError, match="trained in another environment"):
        PPO.load(tmp_path / "run", env="CandidateSelection-v0")
    with pytest.raises(ConfigError, match="Did you mean 'clip_range'"):
        PPO.load(tmp_path / "run", clip_rang=0.1)


def test_parameters_and_file_objects(tree_env: gym.Env) -> None:
    first, second = (PPO("ChildPolicy", tree_env, **{**FEW, "seed": seed}) for seed in (0, 1))
    second.set_parameters(first.get_parameters())
    buffer = io.BytesIO()
    second.save(buffer)
    buffer.seek(0)
    third = PPO.load(buffer)
    for a, b in zip(first.policy.parameters(), third.policy.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", [PPO, VAPO])
def test_masks_given_to_predict_come_first(tree_env: gym.Env, kind: Any) -> None:
    model = kind("ChildPolicy", tree_env, seed=0)
    observation, _ = tree_env.reset(seed=0)
    mask = np.zeros_like(observation["action_mask"])
    mask[1] = 1
    for deterministic in (True, False):
        action, state = model.predict(observation, deterministic=deterministic, action_masks=mask)
        assert action == 1
        assert state is None
    many = {key: np.stack([array] * 3) for key, array in observation.items()}
    assert model.predict(many)[0].shape == (3,)
    with pytest.raises(ValueError, match="no legal child"):
        model.predict(observation, action_masks=np.zeros_like(mask))
    with pytest.raises(ConfigError, match="action_masks has 3 entries"):
        model.predict(observation, action_masks=np.ones(3))
    with pytest.raises(ValueError, match=r"pass `obs`, not `\(obs, info\)`"):
        model.predict((observation, {}))


@pytest.mark.parametrize("kind", [PPO, VAPO, AlphaZero])
def test_seeds_decide_and_no_global_generator_is_touched(tree_env: gym.Env, kind: Any) -> None:
    more = {"num_simulations": 4} if kind is AlphaZero else {}
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (kind("ChildPolicy", tree_env, **{**FEW, **more}).learn(150, log_interval=0) for _ in range(2))
    for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())
    assert (numbers == np.random.get_state()[1]).all()
