"""What the checks of the contract share."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from treegym.errors import TreeGymError

__all__ = ["STEPS", "CheckFailed", "demand", "legal_action", "nondeterministic", "same"]

STEPS = 60


class CheckFailed(TreeGymError, AssertionError):
    """An environment breaks the contract; the message says which point and how."""


def demand(condition: bool, message: str) -> None:
    """Raises CheckFailed unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def same(a: Any, b: Any) -> bool:
    """Whether two nested observations, infos or rewards are equal to the last bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f"))


def legal_action(env: gym.Env, rng: np.random.Generator) -> int:
    """Returns a random action that the environment's own mask allows."""
    return int(rng.choice(np.flatnonzero(env.unwrapped.action_masks())))  # type: ignore[attr-defined]


def nondeterministic(env_id: str) -> bool:
    """Whether the id was registered as one whose episodes differ from run to run."""
    return bool(gym.spec(env_id).nondeterministic)
