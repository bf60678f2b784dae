"""A `World` seen as an SB3 `VecEnv`: what SB3's callbacks and `evaluate_policy` expect of ``model.get_env()``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from treegym.agents.masking import MASK, mask_of
from treegym.agents.play.foreign_worlds import ListWorld
from treegym.agents.play.world import World

__all__ = ["WorldVecEnv"]


class WorldVecEnv(VecEnv):
    """Steps a world the way SB3 does: lanes that end start again in the same step."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._actions = np.zeros(world.num_envs, np.int64)
        self._lengths = np.zeros(world.num_envs, np.int64)
        self._returns = np.zeros(world.num_envs)
        super().__init__(world.num_envs, world.observation_space, world.action_space)

    def reset(self) -> Any:
        seed = self._seeds[0]
        self.world.reset(np.ones(self.num_envs, np.bool_), seed=seed)
        self._reset_seeds()
        self._reset_options()
        self._lengths[:], self._returns[:] = 0, 0.0
        return self._shape(self.world.observe())

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions, np.int64)

    def step_wait(self) -> Any:
        outcome = self.world.step(self._actions, np.ones(self.num_envs, np.bool_))
        done = outcome.terminated | outcome.truncated
        self._lengths += 1
        self._returns += outcome.reward
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        rows = self.world.observe()
        for lane in np.flatnonzero(done):
            infos[lane]["terminal_observation"] = self._shape({key: array[lane].copy() for key, array in rows.items()})
            infos[lane]["TimeLimit.truncated"] = bool(outcome.truncated[lane] and not outcome.terminated[lane])
            infos[lane]["episode"] = {"r": float(self._returns[lane]), "l": int(self._lengths[lane]), "t": 0.0}
            if outcome.success is not None:
                infos[lane]["is_success"] = bool(outcome.success[lane] > 0.5)
        if done.any():
            self._lengths[done], self._returns[done] = 0, 0.0
            self.world.reset(done)
            rows = self.world.observe()
        return self._shape(rows), outcome.reward.astype(np.float32), done, infos

    def close(self) -> None:
        for env in self.world.envs if isinstance(self.world, ListWorld) else [self.world.env]:
            env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [_attribute(env, attr_name) for env in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        for env in self._chosen(indices):
            setattr(env.unwrapped, attr_name, value)

    def has_attr(self, attr_name: str) -> bool:
        """Answers sb3-contrib, which asks whether there are masks, without making all lanes answer."""
        return (attr_name == "action_masks" and self._is_dict() and MASK in self.observation_space.spaces) or (
            super().has_attr(attr_name)
        )

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        if method_name == "action_masks":  # one look at all lanes
            return list(mask_of(self.world.observe(), int(self.action_space.n))[self._indices(indices)])
        return [_attribute(env, method_name)(*args, **kwargs) for env in self._chosen(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False for _ in self._indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        frames = self.world.env.render()
        return list(frames) if isinstance(frames, (list, tuple)) else [frames]

    def _chosen(self, indices: Any) -> list[Any]:
        lanes = self._indices(indices)
        envs = self.world.envs if isinstance(self.world, ListWorld) else [self.world.env] * self.num_envs
        return [envs[lane] for lane in lanes]

    def _indices(self, indices: Any) -> list[int]:
        if indices is None:
            return list(range(self.num_envs))
        return list(indices) if isinstance(indices, Iterable) else [int(indices)]

    def _shape(self, rows: dict[str, np.ndarray]) -> Any:
        return rows["observations"] if set(rows) == {"observations"} and not self._is_dict() else rows

    def _is_dict(self) -> bool:
        return hasattr(self.observation_space, "spaces")


def _attribute(env: Any, name: str) -> Any:
    return getattr(env, name) if hasattr(env, name) else getattr(env.unwrapped, name)
