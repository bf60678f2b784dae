"""Checks of native batches: the same walks as single environments, and all autoreset modes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from treegym.check.tools import STEPS, demand, legal_action, nondeterministic, same

__all__ = ["check_autoreset", "check_vector_equals_single"]


def _make_vector(env_id: str, num_envs: int, kwargs: dict[str, Any], **more: Any) -> VectorEnv:
    return gym.make_vec(env_id, num_envs=num_envs, **kwargs, **more)


def check_vector_equals_single(env_id: str, kwargs: dict[str, Any]) -> None:
    """Lane i of the native batch seeded with s walks as the single environment seeded with s + i."""
    if gym.spec(env_id).vector_entry_point is None or nondeterministic(env_id):
        return
    batch = _make_vector(env_id, 3, kwargs)
    singles = [gym.make(env_id, **kwargs) for _ in range(3)]
    seen, _ = batch.reset(seed=11)
    expected = [env.reset(seed=11 + lane)[0] for lane, env in enumerate(singles)]
    rng, done = np.random.default_rng(5), [False] * 3
    for _ in range(STEPS):
        for lane in range(3):
            row = {key: value[lane] for key, value in seen.items()}
            demand(same(row, expected[lane]), f"lane {lane} of the batch sees something else than the single env")
        actions = [legal_action(env, rng) for env in singles]
        seen, rewards, terminated, truncated, info = batch.step(np.array(actions))
        for lane, env in enumerate(singles):
            if done[lane]:
                idle = not terminated[lane] and not truncated[lane] and not np.any(rewards[lane])
                demand(idle, f"lane {lane}: the step that resets must pay nothing and end nothing")
                expected[lane], done[lane] = env.reset()[0], False
                continue
            expected[lane], reward, ended, cut, single_info = env.step(actions[lane])
            alike = same(rewards[lane], reward) and terminated[lane] == ended and truncated[lane] == cut
            demand(bool(alike), f"lane {lane}: reward or ending differs from the single environment's")
            demand(bool(info["is_success"][lane] == single_info["is_success"]), "is_success differs in the batch")
            done[lane] = ended or cut
    _check_fresh(batch)
    batch.close()


def _check_fresh(batch: VectorEnv) -> None:
    """Demands fresh arrays, one row per lane, and a mask of presence for every key of the info."""
    previous: list[np.ndarray] = []
    seen, _ = batch.reset(seed=0)
    for _ in range(4):
        actions = np.array([np.flatnonzero(mask)[0] for mask in seen["action_mask"]])
        seen, rewards, terminated, truncated, info = batch.step(actions)
        for key in [key for key in info if not key.startswith("_")]:
            demand(f"_{key}" in info, f"the batch's info has {key!r} without its mask '_{key}'")
        arrays = [*seen.values(), rewards, terminated, truncated]
        arrays += [value for value in info.values() if isinstance(value, np.ndarray)]
        demand(
            all(len(array) == batch.num_envs for array in arrays),
            "an array of the batch does not have one row per lane",
        )
        shared = any(np.shares_memory(a, b) for a in arrays for b in previous)
        demand(not shared, "two steps of the batch share an array; observations and infos must be fresh")
        previous = arrays


def check_autoreset(env_id: str, kwargs: dict[str, Any]) -> None:
    """All three autoreset modes: metadata, final observations, reset masks, episode limits."""
    if gym.spec(env_id).vector_entry_point is None:
        return
    default = _make_vector(env_id, 2, kwargs)
    demand(default.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP, "autoreset is not NEXT_STEP by default")
    at_once = _make_vector(env_id, 4, kwargs, autoreset_mode=AutoresetMode.SAME_STEP.value)
    off = _make_vector(env_id, 4, kwargs, autoreset_mode=AutoresetMode.DISABLED.value)
    rng = np.random.default_rng(6)
    for env in (at_once, off):
        seen, _ = env.reset(seed=0)
        for _ in range(STEPS):
            actions = [rng.choice(np.flatnonzero(mask)) for mask in seen["action_mask"]]
            seen, _, terminated, truncated, info = env.step(np.array(actions))
            done = terminated | truncated
            if done.any() and env is at_once:
                demand(same(info["_final_obs"], done), "info['_final_obs'] does not mark the lanes that ended")
                final = info["final_obs"][int(np.flatnonzero(done)[0])]
                demand(env.single_observation_space.contains(final), "a final observation lies outside its space")
                demand("is_success" in info["final_info"], "final_info lacks is_success")
            elif done.any():
                before, (seen, _) = seen, env.reset(options={"reset_mask": done})
                kept = all(same(seen[key][~done], before[key][~done]) for key in seen)
                demand(kept, "reset_mask changed lanes that it does not name")
        env.close()
    limited = _make_vector(env_id, 2, kwargs, max_episode_steps=2)
    seen, _ = limited.reset(seed=0)
    for _ in range(2):
        actions = [np.flatnonzero(mask)[0] for mask in seen["action_mask"]]
        seen, _, terminated, truncated, _ = limited.step(np.array(actions))
    demand(bool((terminated | truncated).all()), "max_episode_steps=2 does not end episodes after two steps")
    limited.close()
