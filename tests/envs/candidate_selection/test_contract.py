"""Every id of this room honours the whole contract."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import treegym  # noqa: F401 (registers the ids)
from treegym.check import check_suite
from treegym.errors import ConfigError

IDS = ("CandidateSelection-v0", "MO-CandidateSelection-v0", "OptimizationPipeline-v0", "MO-OptimizationPipeline-v0")


@pytest.mark.parametrize("env_id", IDS)
def test_contract(env_id: str) -> None:
    assert len(check_suite(env_id)) >= 10


@pytest.mark.parametrize("env_id", IDS[::2])
def test_unknown_keyword_is_told(env_id: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'split'"):
        gym.make(env_id, splitt="train")


def test_recorded_is_deterministic_by_spec() -> None:
    env = gym.make("CandidateSelection-v0")
    assert env.spec is not None
    assert not env.spec.nondeterministic


def test_splits_hold_modules_apart() -> None:
    titles = {}
    for split in ("train", "validation", "test"):
        world = gym.make("CandidateSelection-v0", split=split).unwrapped.world  # type: ignore[attr-defined]
        titles[split] = {world.title(int(root)) for root in world.pool}
    assert titles["train"].isdisjoint(titles["test"] | titles["validation"])
    assert titles["validation"].isdisjoint(titles["test"])
    assert "vision_transformer/0" in titles["test"]  # a kind of module that training never sees


def test_roots_fix_the_choice() -> None:
    env = gym.make_vec("CandidateSelection-v0", num_envs=4, autoreset_mode="Disabled")
    root = int(env.unwrapped.world.pool[7])  # type: ignore[attr-defined]
    seen, info = env.reset(seed=0, options={"roots": np.full(4, root)})
    assert (info["root"] == root).all()
    assert all(np.array_equal(seen["observations"][0], seen["observations"][i]) for i in range(4))
