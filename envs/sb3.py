"""For Stable-Baselines3: a native batch as a `VecEnv`, without subprocesses, and a callback that anneals rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from treegym.errors import ConfigError, require

require("stable_baselines3", extra="agents", purpose="the VecEnv adapter")

from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402 (after its absence was explained)
from stable_baselines3.common.vec_env.base_vec_env import VecEnv  # noqa: E402


class AnnealRewards(BaseCallback):
    """Tells the environments how far training is, so that annealed reward terms (lmgt, zoning, ...) fall to zero.

    Example: ``model.learn(100_000, callback=AnnealRewards())``.
    """

    def _on_rollout_start(self) -> None:
        self.training_env.env_method("set_progress", 1.0 - self.model._current_progress_remaining)

    def _on_step(self) -> bool:
        return True


__all__ = ["AnnealRewards", "NativeVecEnv"]


class NativeVecEnv(VecEnv):
    """Shows a Gymnasium vector environment with same-step autoreset to Stable-Baselines3.

    Example: ``PPO("MultiInputPolicy", NativeVecEnv("TokenTree-v0", num_envs=64))``.
    """

    def __init__(self, env: str | VectorEnv, num_envs: int = 16, **kwargs: Any) -> None:
        """Wraps a vector environment, or makes one from an id and keyword arguments."""
        self.vector: Any = (
            gym.make_vec(env, num_envs=num_envs, autoreset_mode=AutoresetMode.SAME_STEP.value, **kwargs)
            if isinstance(env, str)
            else env
        )
        if self.vector.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise ConfigError('the vector environment must be made with autoreset_mode="SameStep" for SB3')
        self.render_mode = self.vector.render_mode
        self._actions: np.ndarray | None = None
        self._returns = np.zeros(self.vector.num_envs)
        self._lengths = np.zeros(self.vector.num_envs, np.int64)
        super().__init__(self.vector.num_envs, self.vector.single_observation_space, self.vector.single_action_space)

    def reset(self) -> Any:
        seeds = [seed for seed in self._seeds if seed is not None]
        wanted = [options.get("root", -1) for options in self._options]
        observations, infos = self.vector.reset(
            seed=seeds if len(seeds) == self.num_envs else None,
            options=None if set(wanted) == {-1} else {"roots": wanted},
        )
        self.reset_infos = [{"action_mask": mask} for mask in infos["action_mask"]]
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0
        self._lengths[:] = 0
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        observations, rewards, terminated, truncated, infos = self.vector.step(self._actions)
        done = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        entries: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for lane in np.flatnonzero(done):
            entries[lane] = {
                "terminal_observation": infos["final_obs"][lane],
                "TimeLimit.truncated": bool(truncated[lane] and not terminated[lane]),
                "is_success": bool(infos["final_info"]["is_success"][lane]),
                "episode": {"r": float(self._returns[lane]), "l": int(self._lengths[lane]), "t": 0.0},
            }
        self._returns[done] = 0
        self._lengths[done] = 0
        return observations, rewards.astype(np.float32), done, entries

    def close(self) -> None:
        self.vector.close()

    def action_masks(self) -> np.ndarray:
        """Returns which actions are legal ``[B, K] bool`` (the name sb3-contrib looks for)."""
        return self.vector.action_masks()

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        chosen = list(self._get_indices(indices))
        if method_name == "action_masks":
            masks = self.action_masks()
            return [masks[lane] for lane in chosen]
        return [getattr(self.vector, method_name)(*args, **kwargs)] * len(chosen)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.vector, attr_name)] * len(list(self._get_indices(indices)))

    def has_attr(self, attr_name: str) -> bool:
        return hasattr(self.vector, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.vector, attr_name, value)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        # SB3's Monitor is not there, but what it would record (returns and lengths) is in the infos.
        return [wrapper_class.__name__ == "Monitor"] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[np.ndarray | None]:
        frames = self.vector.render()
        return list(frames) if frames is not None else [None] * self.num_envs
