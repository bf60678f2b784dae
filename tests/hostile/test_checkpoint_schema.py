"""Item 1: what a checkpoint holds is compared with what it claims to be, before anything is built from it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.agents import PPO, VAPO, AlphaZero
from treegym.errors import ConfigError, DataError

SEED = int(os.environ.get("TREEGYM_HOSTILE_SEED", "0"))
EACH = 99 if "TREEGYM_HOSTILE_ALL" in os.environ else 2  # damages tried on each array and each number
TREE = "synthetic:roots=8,depth=4,branching=3"
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "pieces": (PPO, {"n_steps": 8, "kl_coef": 0.01, "n_envs": 4}),
    "episodes": (VAPO, {"n_episodes": 8, "group_size": 4, "n_envs": 4, "pretrain_updates": 1}),
    "search": (AlphaZero, {"n_episodes": 4, "num_simulations": 2, "n_envs": 4, "buffer_size": 300}),
}


@pytest.fixture(scope="module", params=KINDS)
def case(request: Any, tmp_path_factory: Any) -> tuple[Any, Path, Any]:
    """A learner, a checkpoint of it in the middle of its training, and its environment."""
    kind, switches = KINDS[request.param]
    env = gym.make("TokenTree-v0", tree=TREE)
    path = tmp_path_factory.mktemp(request.param) / "good.zip"
    agent = kind("ChildPolicy", env, seed=0, **switches)

    class Halfway(agent_callback()):  # in the middle of pieces, so that lanes are kept too
        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                self.model.save(path)

    agent.learn(80, callback=Halfway(), log_interval=0)
    if not path.exists():
        agent.save(path)
    return kind, path, env


def agent_callback() -> Any:
    from stable_baselines3.common.callbacks import BaseCallback

    class Nothing(BaseCallback):
        def _on_step(self) -> bool:
            return True

    return Nothing


def refused(kind: Any, path: Path, env: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        kind.load(path, env=env)
    return str(caught.value)


def test_the_good_one_loads(case: Any, apart: Any) -> None:
    kind, path, env = case
    assert kind.load(path, env=env).num_timesteps > 0
    assert kind.load(apart(path).written("same.zip"), env=env).num_timesteps > 0


def damages(array: np.ndarray) -> dict[str, np.ndarray]:
    """Returns an array in every shape and type that it should not have."""
    found = {
        "one": np.zeros((1,), array.dtype),
        "none": array.reshape(-1)[:0],
        "longer": np.resize(array, (*array.shape[:-1], array.shape[-1] + 1)) if array.ndim else np.resize(array, 2),
        "flat" if array.ndim != 1 else "deep": array.reshape(-1) if array.ndim != 1 else array[None],
        "other type": array.astype(np.int16 if array.dtype.kind == "f" else np.float32),
    }
    if array.dtype.kind == "f" and array.size:
        for name, value in (("nan", np.nan), ("inf", np.inf)):
            found[name] = array.copy()
            found[name].reshape(-1)[0] = value
    return found


def test_no_array_of_another_shape_or_type_gets_in(case: Any, apart: Any) -> None:
    kind, path, env = case
    good = apart(path)
    rng = np.random.default_rng(SEED)
    for name in good.arrays:
        found = list(damages(good.arrays[name]).items())
        for what, array in [found[i] for i in rng.permutation(len(found))[:EACH]]:
            if what == "one" and array.shape == good.arrays[name].shape:
                continue
            if what == "nan" and name.endswith("row.q"):
                continue  # a child that search did not visit
            if what == "none" and good.arrays[name].size == 0:
                continue
            bad = apart(path)
            bad.arrays[name] = array
            said = refused(kind, bad.written(), env)
            assert len(said) <= 500
        bad = apart(path)
        del bad.arrays[name]
        if not name.startswith(("state.world", "state.lanes", "state.units")):  # checkpoints of before have no units
            refused(kind, bad.written(), env)


@pytest.mark.parametrize("value", [-1, 2**40])
def test_lanes_stand_where_there_is_something_to_stand_on(case: Any, apart: Any, value: int) -> None:
    kind, path, env = case
    good = apart(path)
    for name in ("state.world.node", "state.world.steps", "state.lanes.length", "state.replay.row.state"):
        if name in good.arrays and not (name.endswith("row.state") and value == -1):
            bad = apart(path)
            bad.arrays[name] = np.full_like(good.arrays[name], value)
            refused(kind, bad.written(), env)


def test_a_node_that_is_nan_is_refused(case: Any, apart: Any) -> None:
    kind, path, env = case
    good = apart(path)
    if "state.world.node" in good.arrays:
        good.arrays["state.world.node"] = np.full(len(good.arrays["state.world.node"]), np.nan)
        refused(kind, good.written(), env)


JUNK: list[Any] = ["x", -1, [], {}, 1e300, 2**70, True, "1e999", [[1]]]


def test_counters_settings_and_generators_are_what_they_should_be(case: Any, apart: Any) -> None:
    """Whatever gets past `load` can be trained on: nothing fails raw later."""
    kind, path, env = case
    rng = np.random.default_rng(SEED)
    for group in ("counters", "rng", "log", "state", "settings"):
        for key in apart(path).data[group]:
            for junk in [JUNK[i] for i in rng.permutation(len(JUNK))[:EACH]]:
                if (key, junk) in (("kl_beta", 1e300), ("kl_beta", 2**70), ("pretrained", -1)):
                    continue  # which are legal
                bad = apart(path)
                bad.data[group][key] = junk
                where = bad.written()
                with contextlib.suppress(DataError, ConfigError):  # anything else is a crash
                    kind.load(where, env=env)
                    assert group == "settings" or junk == [], (group, key, junk)


def test_a_settings_number_is_of_its_kind(case: Any, apart: Any) -> None:
    kind, path, env = case
    for key, junk in (
        ("n_episodes", 2.5), ("n_episodes", "many"), ("gamma", "high"), ("n_envs", -3), ("n_envs", 2**40),
        ("gamma", 1e300), ("n_envs", 2.0), ("gamma", True), ("max_grad_norm", []), ("gamma", []),
    ):  # fmt: skip
        bad = apart(path)
        bad.data["settings"][key] = junk
        refused(kind, bad.written(), env)


@pytest.mark.parametrize("env", [5, [], {"id": 5, "kwargs": {}}, {"id": "TokenTree-v0"}, {"id": [], "kwargs": None}])
def test_what_a_checkpoint_says_of_its_environment_is_checked_before_it_is_used(
    case: Any, apart: Any, env: Any, capsys: Any
) -> None:
    from treegym.__main__ import main

    _, path, _ = case
    bad = apart(path)
    bad.data["env"] = env
    assert main(["eval", str(bad.written())]) == 1
    assert "treegym: " in capsys.readouterr().err
