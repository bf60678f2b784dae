"""Any environment as a world: Gymnasium's single and vector environments, SB3's `VecEnv`, and env ids."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from stable_baselines3.common.vec_env import VecEnv

from treegym.agents.play.foreign_worlds import ListWorld, VecEnvWorld
from treegym.agents.play.native_worlds import LanesWorld, NativeWorld, has_lanes
from treegym.agents.play.world import World, discrete
from treegym.errors import ConfigError

__all__ = ["make_world"]


def make_world(env: Any, *, num_envs: int | None = None) -> World:
    """Returns `env` as a world.

    Args:
        env: an id, a Gymnasium environment (single or vector), an SB3 `VecEnv`, or a World.
        num_envs: lanes, where the environment can be made again from its spec; None keeps what came (64 for
            environments with a native batch).
    """
    if isinstance(env, (NativeWorld, ListWorld, VecEnvWorld, LanesWorld)):
        return env
    if isinstance(env, str):
        return make_world(gym.make(env), num_envs=num_envs)
    if isinstance(env, VecEnv):
        return VecEnvWorld(env)
    if isinstance(env, VectorEnv):
        return _from_vector(env, num_envs)
    if isinstance(env, gym.Env):
        return _from_single(env, num_envs)
    raise ConfigError(
        f"env is a {type(env).__name__}; expected an id, a Gymnasium environment (single or vector) or an SB3 VecEnv"
    )


DEFAULT_LANES = 64


def _from_single(env: gym.Env, num_envs: int | None) -> World:
    discrete(env.action_space)
    spec = env.spec
    # Only environments with our kind of native batch (autoreset can be switched off) are made again as a batch.
    if spec is not None and spec.vector_entry_point and hasattr(env.unwrapped, "layout") and not _wrapped(env):
        kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
        batch = gym.make_vec(spec.id, num_envs=num_envs or DEFAULT_LANES, autoreset_mode="Disabled", **kwargs)
        return _native(batch)
    if num_envs is not None and num_envs > 1:
        if spec is not None and not _wrapped(env):
            return ListWorld([env, *(gym.make(spec) for _ in range(num_envs - 1))])
        why = "it is wrapped" if spec is not None else "it was not made by gym.make"
        warnings.warn(
            f"n_envs={num_envs}, but {env} cannot be made again ({why}), so one lane is played; pass a vector "
            "environment of so many lanes instead",
            stacklevel=4,
        )
    return ListWorld([env])


def _from_vector(env: VectorEnv, num_envs: int | None) -> World:
    discrete(env.single_action_space)
    if isinstance(env, SyncVectorEnv):
        return ListWorld(env.envs)
    if isinstance(env, AsyncVectorEnv):
        return ListWorld([make() for make in env.env_fns])  # lanes here rest and restart when told: its workers cannot
    if isinstance(env, VectorWrapper):  # what it changes must be seen, so its own methods are used
        if env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED:
            return NativeWorld(env)
        raise ConfigError(
            f"{type(env).__name__} is wrapped around lanes that reset themselves, and cannot be trained on: make them "
            'with gym.make_vec(..., autoreset_mode="Disabled") before wrapping, or wrap single environments'
        )
    if env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED:
        return _native(env)
    if env.spec is not None:
        kwargs = dict(env.spec.kwargs)
        for key in ("vectorization_mode", "num_envs", "autoreset_mode", "vector_kwargs", "wrappers"):
            kwargs.pop(key, None)
        if hasattr(env.unwrapped, "layout"):
            lanes = num_envs or env.num_envs
            return _native(gym.make_vec(env.spec.id, num_envs=lanes, autoreset_mode="Disabled", **kwargs))
        return ListWorld([gym.make(env.spec.id, **kwargs) for _ in range(num_envs or env.num_envs)])
    raise ConfigError(
        f"{type(env).__name__} resets its lanes by itself and cannot be made again without a spec; "
        "make it with gym.make_vec, or with autoreset disabled"
    )


def _native(env: VectorEnv) -> World:
    """Returns a native batch as a world: one of ours by its lanes, any other by its own methods."""
    return LanesWorld(env) if has_lanes(env) else NativeWorld(env)


def _wrapped(env: gym.Env) -> bool:
    """Returns whether anything beyond what `gym.make` itself adds is wrapped around the environment."""
    return bool(env.spec is not None and env.spec.additional_wrappers)
