"""Worlds: any environment as a batch of lanes that end when their episode ends and start again only when told to.

Gymnasium's single and vector environments, SB3's `VecEnv` and env ids all become a `World`; collecting then has one
form. Letters: B lanes, K actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from treegym.envs.token_tree.lanes import Lanes
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError

__all__ = ["LanesWorld", "ListWorld", "NativeWorld", "Outcome", "VecEnvWorld", "World", "has_lanes", "make_world"]

Rows = dict[str, np.ndarray]  # each [B, ...]


class Outcome(NamedTuple):
    """What a step of all lanes led to."""

    reward: np.ndarray  # [B] float64
    terminated: np.ndarray  # [B] bool
    truncated: np.ndarray  # [B] bool
    success: np.ndarray | None  # [B] float32: 1 correct, 0 wrong, NaN where the env does not say; None: it never says
    info: Mapping[str, Any]  # as the env gave it, with arrays over lanes


class World(Protocol):
    """A batch of lanes."""

    num_envs: int
    observation_space: spaces.Space  # of one lane
    action_space: spaces.Discrete
    env: Any  # what it was made of

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: int | None = None) -> None:
        """Starts an episode in the lanes of ``which [B] bool``, at ``roots [B] int`` if given."""
        ...

    def step(self, actions: np.ndarray, active: np.ndarray) -> Outcome:
        """Steps the lanes of ``active [B] bool``; where the others stand afterwards means nothing."""
        ...

    def observe(self, lanes: np.ndarray | None = None) -> Rows:
        """Returns what ``lanes [b] int`` (None: all) see now, in arrays that no later step changes."""
        ...

    def roots(self) -> np.ndarray | None:
        """Returns the roots that episodes can be started at ``[R] int64``, or None if one cannot choose."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Returns all it takes to stand there again, for a checkpoint; empty if that is not possible."""
        ...

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Stands where `state` was taken."""
        ...


def take(rows: Rows, lanes: np.ndarray | None) -> Rows:
    """Returns the rows of some lanes."""
    return rows if lanes is None else {key: array[lanes] for key, array in rows.items()}


def rows_of(observation: Any) -> Rows:
    """Returns a batched observation as a dict of arrays."""
    return dict(observation) if isinstance(observation, Mapping) else {"observations": observation}


class NativeWorld:
    """A vector environment that steps its lanes as one batch; autoreset must be disabled."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.observation_space = env.single_observation_space
        self.action_space = _discrete(env.single_action_space)
        self._done = np.zeros(self.num_envs, np.bool_)
        self._rows: Rows = {}

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: int | None = None) -> None:
        options: dict[str, Any] = {} if which.all() else {"reset_mask": which}
        if roots is not None:
            options["roots"] = np.asarray(roots)
        # A seed starts all lanes' randomness anew, so it goes with a reset of all lanes only.
        observation, _ = self.env.reset(seed=seed if which.all() else None, options=options or None)
        self._done = self._done & ~which
        self._rows = rows_of(observation)

    def step(self, actions: np.ndarray, active: np.ndarray) -> Outcome:
        if not active.all():  # an environment of this kind cannot step some lanes only: the others idle along
            if self._done.any():
                self.reset(self._done.copy())
            if "action_mask" in self._rows:
                actions = np.where(active, actions, self._rows["action_mask"].argmax(1))
        observation, reward, terminated, truncated, info = self.env.step(actions)
        self._done = terminated | truncated
        self._rows = rows_of(observation)
        success = info.get("is_success")
        if success is not None:
            success = np.asarray(success, np.float32)
        if reward.ndim == 2:  # one reward for each objective
            reward = reward.sum(1, dtype=np.float64)
        return Outcome(reward, terminated, truncated, success, info)

    def observe(self, lanes: np.ndarray | None = None) -> Rows:
        return take(self._rows, lanes)

    def roots(self) -> np.ndarray | None:
        return _roots(self.env.unwrapped)

    def state(self) -> dict[str, np.ndarray]:
        clone = getattr(self.env.unwrapped, "clone_state", None)
        state = clone() if clone is not None else {}
        plain = isinstance(state, Mapping) and all(isinstance(value, np.ndarray) for value in state.values())
        return dict(state) if plain else {}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        inner: Any = self.env.unwrapped
        inner.restore_state(dict(state))


class LanesWorld:
    """Lanes of one of our worlds, driven without the vector environment around them.

    Lanes that ended rest until they are reset, and no info is made.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.lanes: Any = env.unwrapped.lanes
        self._seen: Rows | None = None  # what the last step showed, while it is true
        self.num_envs = self.lanes.count
        batch = isinstance(env, VectorEnv)
        self.observation_space = env.single_observation_space if batch else env.observation_space
        self.action_space = _discrete(env.single_action_space if batch else env.action_space)

    @property
    def tree_world(self) -> TreeWorld | None:
        """The token tree that is walked, if it is one."""
        return self.lanes.world if isinstance(self.lanes, Lanes) else None

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: int | None = None) -> None:
        if which.all() and (seed is not None or not self.lanes.key.any()):  # all-zero keys were never seeded
            self.lanes.seed(np.random.default_rng(seed).integers(1, 2**63, size=self.num_envs).astype(np.uint64))
        self.lanes.begin(which, roots)
        self._seen = None

    def step(self, actions: np.ndarray, active: np.ndarray) -> Outcome:
        if hasattr(self.lanes, "step"):
            outcome, self._seen = self.lanes.step(actions, next_step_reset=False)
        else:
            outcome = self.lanes.advance(actions, next_step_reset=False)
            self._seen = None
        success = outcome.success.astype(np.float32)
        return Outcome(outcome.reward, outcome.terminated, outcome.truncated, success, {})

    def observe(self, lanes: np.ndarray | None = None) -> Rows:
        if self._seen is not None:
            return take(self._seen, lanes)
        if lanes is None or len(lanes) == self.num_envs:
            return self.lanes.observe()
        if self.tree_world is not None:
            return self.tree_world.observe(self.lanes.node[lanes], self.lanes.steps[lanes])
        return self.lanes.world.observe(self.lanes.state[lanes])

    def roots(self) -> np.ndarray | None:
        return self.lanes.world.pool

    def state(self) -> dict[str, np.ndarray]:
        return self.lanes.state() if self.tree_world is not None else self.lanes.snapshot()

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.lanes.restore(dict(state))
        self._seen = None


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
        self.action_space = _discrete(self.env.action_space)
        self._dict = isinstance(self.observation_space, spaces.Dict)
        parts: Any = {"observations": self.observation_space}
        if isinstance(self.observation_space, spaces.Dict):
            parts = self.observation_space.spaces
        self._rows = {key: np.zeros((self.num_envs, *(part.shape or ())), part.dtype) for key, part in parts.items()}
        self._seeds = np.full(self.num_envs, -1, np.int64)
        self._played: list[list[int]] = [[] for _ in range(self.num_envs)]

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: int | None = None) -> None:
        for lane in np.flatnonzero(which).tolist():
            options = None if roots is None else {"root": int(roots[lane])}
            lane_seed = None if seed is None else (seed + int(lane)) % 2**31
            self._seeds[lane] = -1 if lane_seed is None else lane_seed
            self._played[lane] = []
            observation, _ = self.envs[lane].reset(seed=lane_seed, options=options)
            self._store(lane, observation)

    def step(self, actions: np.ndarray, active: np.ndarray) -> Outcome:
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
        return Outcome(reward, terminated, truncated, success, {"lanes": infos})

    def observe(self, lanes: np.ndarray | None = None) -> Rows:
        if lanes is None:
            return {key: array.copy() for key, array in self._rows.items()}
        return take(self._rows, lanes)

    def roots(self) -> np.ndarray | None:
        return _roots(self.env.unwrapped)

    def state(self) -> dict[str, np.ndarray]:
        if (self._seeds < 0).any():
            return {}
        played = np.array([action for lane in self._played for action in lane], np.int64)
        counts = np.array([len(lane) for lane in self._played], np.int64)
        return {"seeds": self._seeds.copy(), "played": played, "counts": counts}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
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
        self.action_space = _discrete(env.action_space)
        self._fresh: Rows = {}  # where the lanes stand, those that ended at the start of their next episode
        self._rows: Rows = {}  # the same, but those that ended still at their end
        self._running = False

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: int | None = None) -> None:
        if roots is not None:
            raise ConfigError("an SB3 VecEnv cannot be reset to a root; pass the Gymnasium environment itself")
        if which.all() or not self._running:
            if seed is not None:
                self.env.seed(seed % 2**31)
            self._fresh = {key: np.array(array) for key, array in rows_of(self.env.reset()).items()}
            self._running = True
        self._rows = self._fresh

    def step(self, actions: np.ndarray, active: np.ndarray) -> Outcome:
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
        return Outcome(np.asarray(reward, np.float64), done & ~truncated, truncated, success, {"lanes": infos})

    def observe(self, lanes: np.ndarray | None = None) -> Rows:
        return take(self._rows, lanes)

    def roots(self) -> np.ndarray | None:
        return None

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        raise ConfigError("an SB3 VecEnv cannot be put back where it stood; episodes start anew")


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
    _discrete(env.action_space)
    spec = env.spec
    # Only environments with our kind of native batch (autoreset can be switched off) are made again as a batch.
    if spec is not None and spec.vector_entry_point and hasattr(env.unwrapped, "layout") and not _wrapped(env):
        kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
        batch = gym.make_vec(spec.id, num_envs=num_envs or DEFAULT_LANES, autoreset_mode="Disabled", **kwargs)
        return _native(batch)
    if spec is not None and num_envs is not None and num_envs > 1 and not _wrapped(env):
        return ListWorld([env, *(gym.make(spec) for _ in range(num_envs - 1))])
    return ListWorld([env])


def _from_vector(env: VectorEnv, num_envs: int | None) -> World:
    _discrete(env.single_action_space)
    if isinstance(env, SyncVectorEnv):
        return ListWorld(env.envs)
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


def has_lanes(env: Any) -> bool:
    """Returns whether an environment, single or vector, is one of ours: lanes of a world that can be looked into."""
    lanes = getattr(env.unwrapped, "lanes", None)
    return all(hasattr(lanes, name) for name in ("begin", "observe", "restore", "world"))


def _wrapped(env: gym.Env) -> bool:
    """Returns whether anything beyond what `gym.make` itself adds is wrapped around the environment."""
    return bool(env.spec is not None and env.spec.additional_wrappers)


def _discrete(space: spaces.Space) -> spaces.Discrete:
    if not isinstance(space, spaces.Discrete) or space.start != 0:
        raise ConfigError(f"agents here choose among children: the action space must be Discrete from 0, got {space}")
    return space


def _roots(env: Any) -> np.ndarray | None:
    """Returns ``env.roots``, or the pool of a token tree's split."""
    roots = getattr(env, "roots", None)
    if roots is None:
        roots = getattr(getattr(env, "world", None), "pool", None)
    return None if roots is None else np.asarray(roots, np.int64)


def scalar_reward(reward: Any) -> float:
    """Returns the reward as one number; a vector of objectives is summed."""
    return float(reward) if np.ndim(reward) == 0 else float(np.sum(reward))
