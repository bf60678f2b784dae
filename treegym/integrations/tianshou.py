"""Tianshou: observations in the form its policies look for masks in, ``{"obs": ..., "mask": ...}``."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from treegym.errors import ConfigError

__all__ = ["masked"]


class _Masked(gym.ObservationWrapper[Any, Any, Any]):
    """Renames the two entries; the mask becomes boolean."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        spaces: Any = env.observation_space
        count = int(env.action_space.n)  # type: ignore[attr-defined]
        mask = gym.spaces.MultiBinary(count)
        self.observation_space = gym.spaces.Dict({"obs": spaces["observations"], "mask": mask})

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        return {"obs": observation["observations"], "mask": np.asarray(observation["action_mask"], np.bool_)}


def masked(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Returns an environment of ours as Tianshou's policies want one with masks."""
    names = set(getattr(env.observation_space, "spaces", {}))
    if not {"observations", "action_mask"} <= names:
        raise ConfigError(
            f"the environment shows {sorted(names) or 'no dictionary'}; observations and action_mask are needed"
        )
    return _Masked(env)
