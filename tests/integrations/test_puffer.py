"""PufferLib's wrapper and vector environments over ours, as docs/ecosystem.md writes them."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import treegym  # noqa: F401 (registers the ids)

pytest.importorskip("pufferlib", reason="PufferLib is tested in an environment of its own")
import pufferlib.emulation
import pufferlib.vector


def make(buf: Any = None, seed: int = 0) -> Any:
    creator = partial(gym.make, "TokenTree-v0", split="train")
    return pufferlib.emulation.GymnasiumPufferEnv(env_creator=creator, buf=buf, seed=seed)


def named(env: Any, rows: np.ndarray) -> np.ndarray:
    """PufferLib hands on bytes; its own record of the layout gives them their names back."""
    return rows.view(env.emulated["emulated_observation_dtype"]).reshape(-1)


def test_wrapped_walks_are_the_same_walks() -> None:
    ours, theirs = gym.make("TokenTree-v0", split="train"), make()
    rng = np.random.default_rng(0)
    paid = []
    for seed in range(20):
        expected, _ = ours.reset(seed=seed)
        rows, _ = theirs.reset(seed=seed)
        done = False
        while not done:
            found = named(theirs, rows)[0]
            np.testing.assert_array_equal(found["observations"], expected["observations"])
            np.testing.assert_array_equal(found["action_mask"], expected["action_mask"])
            action = int(rng.choice(np.flatnonzero(found["action_mask"])))
            expected, reward, terminated, truncated, _ = ours.step(action)
            rows, their_reward, their_end, their_cut, _ = theirs.step(action)
            assert (float(their_reward), bool(their_end), bool(their_cut)) == (float(reward), terminated, truncated)
            done = terminated or truncated
        paid.append(float(reward))
    assert 0 < sum(paid) < len(paid)  # some of these walks end right, some wrong


def test_its_vector_environment_plays_on_after_ends() -> None:
    lanes = pufferlib.vector.make(make, num_envs=4, backend=pufferlib.vector.Serial)
    rows, _ = lanes.reset(seed=0)
    ends = np.zeros(4, dtype=int)
    for _ in range(200):
        mask = named(lanes.driver_env, rows)["action_mask"]
        rows, _, terminated, truncated, _ = lanes.step(mask.argmax(axis=1).astype(np.int32))
        ends += terminated | truncated
    assert (ends > 1).all()
