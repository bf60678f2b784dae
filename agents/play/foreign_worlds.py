"""Environments that know nothing of lanes, as worlds: single ones in a list, and SB3's `VecEnv`. Letters: B lanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from treegym.agents.play.world import PlayStep, Rows, Seed, discrete, roots_of, rows_of, scalar_reward, take
from treegym.agents.schema import Expected, check_arrays
from treegym.errors import ConfigError, DataError

__all__ = ["ListWorld", "VecEnvWorld"]


class ListWorld:
    """Several single environments, stepped one after the other without `SyncVectorEnv`'s bookkeeping.

    Every episode is begun with a seed and its actions are remembered, so that a checkpoint can take a lane to where it
    stood by playing them again: no environment needs to know how to save itself.
    """

    def __init__(self, envs: Sequence[gym.Env]) -> None:
        self.env = envs[0]
        self.envs = list(envs)
        self.num_envs = len(self.envs)
        self.observation_space = self.env.observation_space
        self.action_space = discrete(self.env.action_space)
        self._dict = isinstance(self.observation_space, spaces.Dict)
        parts: Any = {"observations": self.observation_space}
        if isinstance(self.observation_space, spaces.Dict):
            parts = self.observation_space.spaces
        self._rows = {key: np.zeros((self.num_envs, *(part.shape or ())), part.dtype) for key, part in parts.items()}
        self._seeds = np.full(self.num_envs, -1, np.int64)
        self._played: list[list[int]] = [[] for _ in range(self.num_envs)]

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: Seed = None) -> None:
        for lane in np.flatnonzero(which).tolist():
            options = None if roots is None else {"root": int(roots[lane])}
            lane_seed = None
            if seed is not None:
                lane_seed = int(seed[lane]) if isinstance(seed, np.ndarray) else (seed + lane) % 2**31
            self._seeds[lane] = -1 if lane_seed is None else lane_seed
            self._played[lane] = []
            observation, _ = self.envs[lane].reset(seed=lane_seed, options=options)
            self._store(lane, observation)

    def step(self, actions: np.ndarray, active: np.ndarray) -> PlayStep:
        reward = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, np.bool_)
        truncated = np.zeros(self.num_envs, np.bool_)
        success: np.ndarray | None = None
        infos: list[Mapping[str, Any]] = [{}] * self.num_envs
        chosen = actions.tolist()
        for lane in range(self.num_envs) if active.all() else np.flatnonzero(active).tolist():
            self._played[lane].append(chosen[lane])
            observation, pay, terminated[lane], truncated[lane], info = self.envs[lane].step(chosen[lane])
            reward[lane] = scalar_reward(pay)
            if "is_success" in info:
                if success is None:
                    success = np.full(self.num_envs, np.nan, np.float32)
                success[lane] = info["is_success"]
            infos[lane] = info
            self._store(lane, observation)
        return PlayStep(reward, terminated, truncated, success, {"lanes": infos})

    def observe(self, lanes: np.ndarray | None = None, keys: tuple[str, ...] | None = None) -> Rows:
        if lanes is None:
            return {key: array.copy() for key, array in take(self._rows, None, keys).items()}
        return take(self._rows, lanes, keys)

    def observation_rows(self) -> Rows:
        """Returns what the lanes see, to be looked at only."""
        return self._rows

    def shows(self, lanes: np.ndarray, rows: Rows) -> None:
        """Takes note of what ``lanes [b]`` see where somebody else stepped them."""
        for key, array in self._rows.items():
            array[lanes] = rows[key]

    def roots(self) -> np.ndarray | None:
        return roots_of(self.env.unwrapped)

    def state(self) -> dict[str, np.ndarray]:
        if (self._seeds < 0).any():
            return {}
        played = np.array([action for lane in self._played for action in lane], np.int64)
        counts = np.array([len(lane) for lane in self._played], np.int64)
        return {"seeds": self._seeds.copy(), "played": played, "counts": counts}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        count, total = self.num_envs, len(state["played"])
        expected = {
            "seeds": Expected((count,), np.int64, 0, 2**31 - 1),
            "played": Expected((total,), np.int64, 0, int(self.action_space.n) - 1),
            "counts": Expected((count,), np.int64, 0, total),
        }
        check_arrays(state, expected, "lanes")
        if int(state["counts"].sum()) != total:
            raise DataError(f"lanes: {total} actions were kept, but the lanes count {int(state['counts'].sum())}")
        lanes = np.split(state["played"], np.cumsum(state["counts"])[:-1])
        for lane, (seed, actions) in enumerate(zip(state["seeds"].tolist(), lanes, strict=True)):
            observation, _ = self.envs[lane].reset(seed=seed)
            self._seeds[lane], self._played[lane] = seed, actions.tolist()
            for action in self._played[lane]:
                observation, *_ = self.envs[lane].step(action)
            self._store(lane, observation)

    def _store(self, lane: int, observation: Any) -> None:
        if self._dict:
            for key, array in self._rows.items():
                array[lane] = observation[key]
        else:
            self._rows["observations"][lane] = observation


class VecEnvWorld:
    """An SB3 `VecEnv`. It resets lanes by itself, so lanes that should rest go on and what they do is thrown away."""

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.observation_space = env.observation_space
        self.action_space = discrete(env.action_space)
        self._fresh: Rows = {}  # where the lanes stand, those that ended at the start of their next episode
        self._rows: Rows = {}  # the same, but those that ended still at their end
        self._running = False

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: Seed = None) -> None:
        if roots is not None:
            raise ConfigError("an SB3 VecEnv cannot be reset to a root; pass the Gymnasium environment itself")
        if isinstance(seed, np.ndarray):
            raise ConfigError(
                "an SB3 VecEnv cannot start two episodes alike, as groups need; pass the Gymnasium environment itself"
            )
        if which.all() or not self._running:
            if seed is not None:
                self.env.seed(seed % 2**31)
            self._fresh = {key: np.array(array) for key, array in rows_of(self.env.reset()).items()}
            self._running = True
        self._rows = self._fresh

    def step(self, actions: np.ndarray, active: np.ndarray) -> PlayStep:
        observation, reward, done, infos = self.env.step(actions)
        self._fresh = {key: np.array(array) for key, array in rows_of(observation).items()}
        rows = {key: array.copy() for key, array in self._fresh.items()}
        truncated = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        success = None
        if any("is_success" in info for info in infos):
            success = np.array([info.get("is_success", np.nan) for info in infos], np.float32)
        for lane in np.flatnonzero(done):  # the caller wants to see where the episode ended
            last = rows_of(infos[lane]["terminal_observation"])
            for key, array in rows.items():
                array[lane] = last[key]
        self._rows = rows
        return PlayStep(np.asarray(reward, np.float64), done & ~truncated, truncated, success, {"lanes": infos})

    def observe(self, lanes: np.ndarray | None = None, keys: tuple[str, ...] | None = None) -> Rows:
        return take(self._rows, lanes, keys)

    def roots(self) -> np.ndarray | None:
        return None

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        raise ConfigError("an SB3 VecEnv cannot be put back where it stood; episodes start anew")
