"""A flat wrapper for single-file trainers: one Box of observations, the mask in the info and in `action_masks()`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from treegym.errors import ConfigError

__all__ = ["FlatObservation", "FlatVectorObservation"]


def _flat_space(space: gym.Space, key: str) -> gym.Space:
    if not isinstance(space, gym.spaces.Dict) or key not in space.spaces:
        raise ConfigError(f"the environment's observations are {space}; a Dict with {key!r} was expected")
    return space.spaces[key]


class FlatObservation(gym.ObservationWrapper):
    """Shows only ``obs["observations"]``."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = _flat_space(env.observation_space, "observations")

    def observation(self, observation: Any) -> np.ndarray:
        return observation["observations"]

    def action_masks(self) -> np.ndarray:
        """Returns which actions are legal ``[K] bool``."""
        return self.env.unwrapped.action_masks()  # type: ignore[attr-defined]


class FlatVectorObservation(gym.vector.VectorWrapper):
    """Shows only ``obs["observations"]`` of every lane."""

    def __init__(self, env: gym.vector.VectorEnv) -> None:
        super().__init__(env)
        self.observation_space = _flat_space(env.observation_space, "observations")
        self.single_observation_space = _flat_space(env.single_observation_space, "observations")

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        seen, info = self.env.reset(seed=seed, options=options)
        return seen["observations"], info

    def step(self, actions: Any) -> tuple[np.ndarray, Any, Any, Any, dict[str, Any]]:
        """Steps; what ended lanes saw last (``info["final_obs"]``) is flat, too."""
        seen, reward, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            final = np.full(self.num_envs, None, object)
            for lane in np.flatnonzero(info["_final_obs"]):
                final[lane] = info["final_obs"][lane]["observations"]
            info = {**info, "final_obs": final}
        return seen["observations"], reward, terminated, truncated, info

    def action_masks(self) -> np.ndarray:
        """Returns which actions are legal ``[B, K] bool``."""
        return self.env.unwrapped.action_masks()  # type: ignore[attr-defined]
