"""Checkpoints: no pickle, nothing lost, nothing executed; a killed run ends as if it had not been."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from treegym.agents import DAPO, PPO, VAPO, AlphaZero
from treegym.agents.callbacks import CheckpointCallback, latest_checkpoint
from treegym.agents.registry import agent_class
from treegym.errors import ConfigError, DataError

KINDS: list[tuple[type, dict[str, Any]]] = [
    (PPO, {"n_episodes": 64, "ent_coef": "linear:0.05:0.0", "kl_coef": 0.01, "kl_target": 0.02}),
    (PPO, {"n_steps": 8}),
    (DAPO, {"n_episodes": 64, "group_size": 8}),
    (VAPO, {"n_episodes": 64, "group_size": 8, "pretrain_updates": 3}),
    (AlphaZero, {"n_episodes": 32, "num_simulations": 8, "buffer_size": 300}),
]


def _state(agent: Any) -> dict[str, torch.Tensor]:
    _, arrays = agent.training_state()
    tensors = {f"policy.{name}": tensor for name, tensor in agent.policy.state_dict().items()}
    tensors |= {name: torch.as_tensor(np.array(array)) for name, array in arrays.items()}
    tensors["rng"] = torch.tensor(agent.rng.integers(2**31))
    return tensors


@pytest.mark.parametrize("policy", ["ChildPolicy", "MultiInputPolicy"])
@pytest.mark.parametrize(("kind", "switches"), KINDS)
def test_resuming_is_bit_identical(
    tree_env: gym.Env, tmp_path: Path, kind: Any, switches: dict[str, Any], policy: str
) -> None:
    if policy == "MultiInputPolicy" and kind is not PPO:
        pytest.skip("the policy makes a difference to PPO's fused update only")
    switches = {**switches, "n_envs": 32, "learning_rate": "lin_0.003"}
    path = tmp_path / "run.zip"

    class SaveHalfway(CheckpointCallback):
        def _on_rollout_start(self) -> None:
            if self.num_timesteps >= 700 and not path.exists():
                self.model.save(path)

    whole = kind(policy, tree_env, seed=5, **switches)
    whole.learn(1600, callback=SaveHalfway(tmp_path, every=10**9), log_interval=0)
    resumed = kind.load(path, env=tree_env)
    resumed.learn(1600 - resumed.num_timesteps, reset_num_timesteps=False, log_interval=0)
    assert resumed.num_timesteps == whole.num_timesteps
    ours, reference = _state(resumed), _state(whole)
    assert ours.keys() == reference.keys()
    for name, tensor in reference.items():
        np.testing.assert_array_equal(ours[name].numpy(), tensor.numpy(), err_msg=name)  # NaN equals NaN here


def test_pieces_of_a_foreign_environment_resume_bit_identically(tmp_path: Path) -> None:
    """CartPole knows nothing of saving itself: its lanes are taken to where they stood by playing them again."""
    zoo = {"n_envs": 3, "n_steps": 50, "batch_size": 75, "n_epochs": 2, "seed": 1}
    whole = PPO("MlpPolicy", "CartPole-v1", **zoo).learn(300, log_interval=0)
    whole.save(tmp_path / "half.zip")
    resumed = PPO.load(tmp_path / "half.zip", env="CartPole-v1")
    for agent in (whole, resumed):
        agent.learn(300, reset_num_timesteps=False, log_interval=0)
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[name], tensor), name


SCRIPT = """
import sys, time
import torch
torch.set_num_threads(1)
from treegym.agents.registry import agent_class
from treegym.agents.callbacks import CheckpointCallback, latest_checkpoint
import gymnasium as gym, json, treegym

folder, slow, kind, switches = sys.argv[1], float(sys.argv[2]), agent_class(sys.argv[3]), json.loads(sys.argv[4])
class Slow(CheckpointCallback):
    def _on_rollout_end(self):
        time.sleep(slow)
env = gym.make("TokenTree-v0", tree="{tree}")
found = latest_checkpoint(folder)
if found is None:
    agent = kind("ChildPolicy", env, **switches)
else:
    agent = kind.load(found, env=env)
agent.learn(3000 - agent.num_timesteps, callback=Slow(folder, every=200), reset_num_timesteps=False, log_interval=0)
agent.save(folder + "/final.zip")
"""


@pytest.mark.parametrize("name", ["ppo", "dapo", "vapo", "alphazero"])
def test_a_killed_run_ends_like_an_uninterrupted_one(tmp_path: Path, tree_spec: str, name: str) -> None:
    switches: dict[str, Any] = {"seed": 3, "n_envs": 32, "n_episodes": 32}
    switches |= {"alphazero": {"num_simulations": 8}, "ppo": {}}.get(name, {"group_size": 8})
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.replace("{tree}", tree_spec))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    interrupted = tmp_path / "killed"
    command = [sys.executable, str(script)]
    asked = [name, json.dumps(switches)]
    running = subprocess.Popen([*command, str(interrupted), "0.3", *asked], env=environment)
    deadline = time.monotonic() + 120
    while latest_checkpoint(interrupted) is None and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert latest_checkpoint(interrupted) is not None
    assert not (interrupted / "final.zip").exists()
    subprocess.run([*command, str(interrupted), "0", *asked], env=environment, check=True)
    env = gym.make("TokenTree-v0", tree=tree_spec)
    straight = agent_class(name)("ChildPolicy", env, **switches)
    straight.learn(3000, log_interval=0)
    straight.save(tmp_path / "straight.zip")
    assert (interrupted / "final.zip").read_bytes() == (tmp_path / "straight.zip").read_bytes()


def test_save_and_load_predict_the_same(tree_env: gym.Env, tmp_path: Path) -> None:
    agent = PPO("ChildPolicy", tree_env, n_envs=8, n_episodes=16, seed=0).learn(100, log_interval=0)
    agent.save(tmp_path / "run")  # without suffix, as SB3 users write
    copy = PPO.load(tmp_path / "run")  # and without an environment
    observation, _ = tree_env.reset(seed=4)
    for deterministic in (True, False):
        ours, theirs = (a.predict(observation, deterministic=deterministic)[0] for a in (agent, copy))
        assert ours == theirs
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        assert sorted(archive.namelist()) == ["arrays.safetensors", "data.json"]
        assert json.loads(archive.read("data.json"))["algorithm"] == "PPO"
    with pytest.raises(ConfigError, match="no environment to learn in"):
        copy.learn(10)


def test_equal_agents_give_equal_files(tree_env: gym.Env, tmp_path: Path) -> None:
    for name in ("a", "b"):
        PPO("ChildPolicy", tree_env, n_envs=8, n_episodes=16, seed=0).learn(50, log_interval=0).save(tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_wrong_checkpoints_get_one_sentence(tree_env: gym.Env, tmp_path: Path) -> None:
    good = tmp_path / "good.zip"
    PPO("ChildPolicy", tree_env, n_envs=4, n_episodes=4, seed=0).save(good)
    content = good.read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(good) as archive:
        data, arrays = json.loads(archive.read("data.json")), archive.read("arrays.safetensors")
    _rewrite(tmp_path / "newer.zip", {**data, "format": 99}, arrays)
    _rewrite(tmp_path / "other.zip", {**data, "kind": "something"}, arrays)
    _rewrite(tmp_path / "holes.zip", {**data, "counters": {}}, arrays)
    _rewrite(tmp_path / "empty.zip", data, arrays[:4])
    cases = [
        (PPO, "cut.zip", DataError, "damaged"),
        (PPO, "text.zip", DataError, "damaged"),
        (PPO, "newer.zip", DataError, "checkpoint format 99"),
        (PPO, "other.zip", DataError, "not a TreeGym checkpoint"),
        (PPO, "holes.zip", DataError, "damaged"),
        (PPO, "empty.zip", DataError, "header"),
        (PPO, "missing.zip", DataError, "no such checkpoint"),
        (DAPO, "good.zip", ConfigError, "holds a PPO, not a DAPO"),
    ]
    for kind, name, error, sentence in cases:
        with pytest.raises(error, match=sentence) as caught:
            kind.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="another environment"):
        PPO.load(good, env="CartPole-v1")


def test_sb3_checkpoints_are_not_opened(tmp_path: Path) -> None:
    from stable_baselines3 import PPO as Theirs

    Theirs("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "theirs.zip")
    with pytest.raises(DataError, match="pickles, which are not read here"):
        PPO.load(tmp_path / "theirs.zip")


def test_flipped_bits_never_crash(tree_env: gym.Env, tmp_path: Path) -> None:
    good = tmp_path / "good.zip"
    PPO("ChildPolicy", tree_env, n_envs=4, n_episodes=4, seed=0).save(good)
    content = bytearray(good.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = content.copy()
        for place in rng.integers(len(content), size=3):
            broken[place] ^= 1 << rng.integers(8)
        (tmp_path / "bad.zip").write_bytes(broken)
        with contextlib.suppress(DataError, ConfigError):  # anything else is a crash
            PPO.load(tmp_path / "bad.zip")


@pytest.mark.parametrize("kind", [PPO, AlphaZero])
def test_junk_in_any_place_of_the_data_is_a_sentence(tree_env: gym.Env, tmp_path: Path, kind: Any) -> None:
    more = {"num_simulations": 2} if kind is AlphaZero else {}
    kind("ChildPolicy", tree_env, n_envs=4, n_episodes=4, seed=0, **more).learn(1).save(tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "good.zip") as archive:
        data, arrays = json.loads(archive.read("data.json")), archive.read("arrays.safetensors")
    places = list(_places(data))
    assert len(places) > 80
    rng = np.random.default_rng(0)
    said: list[str] = []
    junk: list[Any] = [None, "x", -1, [], {}]
    for turn, number in enumerate(rng.permutation(len(places))[:80].tolist()):
        *way, last = places[number]
        broken = json.loads(json.dumps(data))
        inner = broken
        for key in way:
            inner = inner[key]
        inner[last] = junk[turn % 5]
        _rewrite(tmp_path / "bad.zip", broken, arrays)
        try:
            kind.load(tmp_path / "bad.zip", env=tree_env)
        except (DataError, ConfigError) as error:  # anything else is a crash
            said.append(str(error))
    assert len(said) > 20
    assert not any("\n" in sentence for sentence in said)


def _places(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the way to every value, of lists the first two."""
    inside = data.items() if isinstance(data, dict) else enumerate(data[:2]) if isinstance(data, list) else ()
    for key, value in inside:
        yield (*way, key)
        yield from _places(value, (*way, key))


def test_policies_from_outside_are_named_not_imported(tree_env: gym.Env, tmp_path: Path) -> None:
    from treegym.agents.policies.child import ChildPolicy

    class Mine(ChildPolicy):
        pass

    PPO(Mine, tree_env, n_envs=4).save(tmp_path / "mine.zip")
    with pytest.raises(ConfigError, match="register it"):
        PPO.load(tmp_path / "mine.zip")


def test_schedules_that_are_functions_must_be_given_again(tree_env: gym.Env, tmp_path: Path) -> None:
    agent = PPO("ChildPolicy", tree_env, n_envs=4, learning_rate=lambda remaining: 1e-3 * remaining)
    agent.save(tmp_path / "run.zip")
    with pytest.raises(ConfigError, match="pass learning_rate="):
        PPO.load(tmp_path / "run.zip")
    assert PPO.load(tmp_path / "run.zip", learning_rate=1e-3).settings.learning_rate == 1e-3


def test_checkpoints_are_kept_sparingly_and_the_best_apart(tree_env: gym.Env, tmp_path: Path) -> None:
    agent = PPO("ChildPolicy", tree_env, n_envs=16, n_episodes=16, seed=0)
    scores = iter([0.2, 0.9, 0.5, *[0.1] * 50])
    best: list[int] = []

    def validate(model: Any) -> float:
        score = next(scores)
        if score == 0.9:
            best.append(model.num_timesteps)
        return score

    agent.learn(600, callback=CheckpointCallback(tmp_path, every=100, keep=2, validate=validate), log_interval=0)
    kept = sorted(path.name for path in tmp_path.glob("step-*.zip"))
    assert len(kept) == 2
    assert latest_checkpoint(tmp_path) == tmp_path / kept[-1]
    assert PPO.load(tmp_path / "best.zip").num_timesteps == best[0]
    assert json.loads((tmp_path / "best.json").read_text()) == {"score": 0.9, "steps": best[0]}


def _rewrite(path: Path, data: dict[str, Any], arrays: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.json", json.dumps(data))
        archive.writestr("arrays.safetensors", arrays)


def test_what_a_checkpoint_was_made_with_stays(tree_env: gym.Env, tmp_path: Path) -> None:
    agent = PPO("ChildPolicy", tree_env, seed=3, policy_kwargs={"hidden": 16})
    agent.save(tmp_path / "a.zip")
    again = PPO.load(tmp_path / "a.zip", env=tree_env, seed=3, policy_kwargs={"hidden": 16}, gamma=0.9)
    assert again.settings.gamma == 0.9
    for changed, message in (
        ({"seed": 4}, "made with seed=3, which stays; got 4"),
        ({"policy_kwargs": {"hidden": 32}}, "made with hidden=16, which stays; got 32"),
    ):
        with pytest.raises(ConfigError, match=message):
            PPO.load(tmp_path / "a.zip", env=tree_env, **changed)


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.0), (0.0, 0.1)])
def test_a_kl_is_switched_off_and_on_where_training_goes_on(tmp_path: Path, before: float, after: float) -> None:
    """Switched on, it is measured to the policy as it was loaded, at the coefficient asked for."""
    tree = {"tree": "synthetic:roots=30,depth=3,branching=2,difficulty=0.1,seed=1"}
    made = gym.make_vec("TokenTree-v0", num_envs=4, vectorization_mode="vector_entry_point", **tree)
    first = PPO("ChildPolicy", made, seed=0, n_episodes=16, n_epochs=1, kl_coef=before).learn(60)
    first.save(tmp_path / "first.zip")
    second = PPO.load(tmp_path / "first.zip", env=made, kl_coef=after)
    assert second.kl_beta == after
    if after:
        loaded = first.policy.state_dict()
        assert all(torch.equal(own, loaded[name]) for name, own in second.reference.state_dict().items())
    second.learn(60, reset_num_timesteps=False)
    assert second.num_timesteps >= first.num_timesteps + 60
