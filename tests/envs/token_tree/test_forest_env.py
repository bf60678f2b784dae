from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import treegym  # noqa: F401 - registers the environments
from treegym.check import check_suite
from treegym.envs.token_tree import forest as forest_module
from treegym.envs.token_tree.forest import ForestWorld
from treegym.errors import ConfigError
from treegym.tree.editing import merge
from treegym.tree.forest import Forest
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import TokenTree

TREES = 6


@pytest.fixture(scope="module")
def trees() -> list[TokenTree]:
    return [synthetic_tree(roots=20, depth=3, branching=3, seed=seed) for seed in range(TREES)]


@pytest.fixture(scope="module")
def folder(trees: list[TokenTree], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("forest")
    for number, tree in enumerate(trees):
        tree.save(place / f"part-{number}.tree")
    Forest.gather(place)
    return place


def test_under_a_given_root_a_forest_is_walked_as_the_merged_tree(folder: Path, trees: list[TokenTree]) -> None:
    whole = merge(trees)
    roots = np.random.default_rng(0).permutation(whole.num_roots)[:64]  # lanes in all trees at once
    envs = [gym.make_vec("TokenTree-v0", num_envs=64, tree=t, split="all", autoreset_mode="Disabled")
            for t in (str(folder), whole)]  # fmt: skip
    seen = [env.reset(seed=0, options={"roots": roots}) for env in envs]
    assert seen[0][1]["root"].tolist() == roots.tolist()
    rng = np.random.default_rng(1)
    for _ in range(12):
        np.testing.assert_array_equal(seen[0][0]["observations"], seen[1][0]["observations"])
        np.testing.assert_array_equal(seen[0][0]["action_mask"], seen[1][0]["action_mask"])
        mask = seen[0][0]["action_mask"] * rng.random((64, envs[0].single_action_space.n))
        steps = [env.step(mask.argmax(1)) for env in envs]
        for a, b in zip(steps[0][1:4], steps[1][1:4], strict=True):
            np.testing.assert_array_equal(a, b)
        assert envs[0].unwrapped.nodes.tolist() == envs[1].unwrapped.nodes.tolist()
        done = steps[0][2] | steps[0][3]
        if done.any():
            again = {"reset_mask": done, "roots": np.where(done, np.roll(roots, 1), -1)}
            seen = [env.reset(options=again) for env in envs]
        else:
            seen = [(step[0], step[4]) for step in steps]


def test_lanes_pass_through_all_trees_with_few_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest_module, "SHORTEST", 2)
    envs = gym.make_vec("TokenTree-v0", num_envs=8, tree=str(folder))
    observation, info = envs.reset(seed=3)
    walked = set(info["root"].tolist())
    for _ in range(120):
        observation, *_, info = envs.step(observation["action_mask"].argmax(1))
        walked |= set(info["root"].tolist())
    world = envs.unwrapped.world
    assert {root // 20 for root in walked} == set(range(TREES))
    assert len(world._worlds) <= forest_module.KEPT_WORLDS
    assert len(world.tree._open) <= world.tree.open_trees


def test_a_lane_walks_as_the_single_environment_of_its_seed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest_module, "SHORTEST", 2)
    lanes = 3
    batch = gym.make_vec("TokenTree-v0", num_envs=lanes, tree=str(folder))
    single = [gym.make("TokenTree-v0", tree=str(folder)) for _ in range(lanes)]
    seen, info = batch.reset(seed=5)
    own = [env.reset(seed=5 + lane) for lane, env in enumerate(single)]
    over = [False] * lanes
    for _ in range(60):
        assert info["root"].tolist() == [told["root"] for _, told in own]
        np.testing.assert_array_equal(seen["observations"], [rows["observations"] for rows, _ in own])
        actions = seen["action_mask"].argmax(1)
        seen, _, terminated, truncated, info = batch.step(actions)
        for lane, env in enumerate(single):
            own[lane] = env.reset() if over[lane] else env.step(actions[lane])[::4]
        over = (terminated | truncated).tolist()


def test_states_are_come_back_to(folder: Path) -> None:
    envs = gym.make_vec("TokenTree-v0", num_envs=8, tree=str(folder), split="all", autoreset_mode="Disabled")
    inner = envs.unwrapped
    seen, _ = envs.reset(seed=0, options={"roots": np.arange(0, 120, 15)})
    state = inner.clone_state()
    first = envs.step(seen["action_mask"].argmax(1))
    envs.reset(options={"roots": np.arange(8)})
    np.testing.assert_array_equal(inner.restore_state(state)["observations"], seen["observations"])
    np.testing.assert_array_equal(envs.step(seen["action_mask"].argmax(1))[0]["observations"], first[0]["observations"])
    assert inner.lanes.placed(inner.lanes.places(np.array([5, 1]))).node.tolist() == inner.nodes[[5, 1]].tolist()
    with pytest.raises(ConfigError, match="cloned in another environment"):
        inner.restore_state({**state, "origin": state["origin"] + 1})
    env = gym.make("TokenTree-v0", tree=str(folder)).unwrapped
    env.reset(seed=0, options={"root": 3})
    kept = env.clone_state()
    env.reset(options={"root": 100})
    env.restore_state(kept)
    assert env._root == 3


def test_it_keeps_the_contract(folder: Path) -> None:
    assert check_suite("TokenTree-v0", tree=str(folder))


def test_what_a_forest_cannot_do_is_said(folder: Path) -> None:
    with pytest.raises(ConfigError, match="shows features"):
        ForestWorld(str(folder), view="tokens")
    envs = gym.make_vec("TokenTree-v0", num_envs=2, tree=str(folder))
    with pytest.raises(ConfigError, match="root 120 is out of range; the forest has roots 0 to 119"):
        envs.reset(options={"roots": np.array([0, 120])})
