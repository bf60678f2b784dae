"""check_suite can fail: every kind of broken environment is caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.check import CheckFailed, check_suite
from treegym.envs.token_tree.env import TokenTreeEnv

TREE = "synthetic:roots=40,depth=6,branching=5,width=4,seed=3"


class _Broken(TokenTreeEnv):
    """TokenTree with one thing wrong."""


def _shared_mask(env: TokenTreeEnv, outcome: Any) -> Any:
    outcome[-1]["action_mask"] = outcome[0]["action_mask"]
    return outcome


def _numpy_reward(env: TokenTreeEnv, outcome: Any) -> Any:
    return (outcome[0], np.float64(outcome[1]), *outcome[2:]) if len(outcome) == 5 else outcome


def _reserved_key(env: TokenTreeEnv, outcome: Any) -> Any:
    outcome[-1]["episode"] = 1
    return outcome


def _changing_key(env: TokenTreeEnv, outcome: Any) -> Any:
    outcome[-1]["root"] = 1 if len(outcome) == 5 else "one"
    return outcome


def _unseeded(env: TokenTreeEnv, outcome: Any) -> Any:
    outcome[0]["observations"][3] = np.random.default_rng().random()
    return outcome


def _unbounded(env: TokenTreeEnv, outcome: Any) -> Any:
    outcome[0]["observations"][3] = 1e9
    return outcome


def _empty_mask(env: TokenTreeEnv, outcome: Any) -> Any:
    outcome[0]["action_mask"][:] = 0
    return outcome


def _unflagged(env: TokenTreeEnv, outcome: Any) -> Any:
    outcome[-1]["illegal_action"] = False
    return outcome


@pytest.mark.parametrize(
    "spoil",
    [_shared_mask, _numpy_reward, _reserved_key, _changing_key, _unseeded, _unbounded, _empty_mask, _unflagged],
)
def test_a_broken_environment_is_caught(spoil: Callable[[TokenTreeEnv, Any], Any]) -> None:
    class Spoiled(TokenTreeEnv):
        def reset(self, **kwargs: Any) -> Any:
            return spoil(self, super().reset(**kwargs))

        def step(self, action: Any) -> Any:
            return spoil(self, super().step(action))

    gym.register("Spoiled-v0", Spoiled, kwargs={"tree": TREE}, disable_env_checker=True)
    try:
        with pytest.raises((CheckFailed, AssertionError)):
            check_suite("Spoiled-v0")
    finally:
        gym.registry.pop("Spoiled-v0")
