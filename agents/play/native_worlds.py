"""Environments that step all their lanes as one batch, as worlds. Letters: B lanes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from treegym.agents.play.world import PlayStep, Rows, Seed, discrete, roots_of, rows_of, take
from treegym.envs.lanes import Lanes
from treegym.envs.token_tree.world import TreeWorld

__all__ = ["LanesWorld", "NativeWorld", "has_lanes"]


class NativeWorld:
    """A vector environment that steps its lanes as one batch; autoreset must be disabled."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.observation_space = env.single_observation_space
        self.action_space = discrete(env.single_action_space)
        self._done = np.zeros(self.num_envs, np.bool_)
        self._rows: Rows = {}

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: Seed = None) -> None:
        options: dict[str, Any] = {} if which.all() else {"reset_mask": which}
        if roots is not None:
            options["roots"] = np.asarray(roots)
        # A seed starts all lanes' randomness anew, so it goes with a reset of all lanes only.
        seeds = seed.tolist() if isinstance(seed, np.ndarray) else seed
        observation, _ = self.env.reset(seed=seeds if which.all() else None, options=options or None)
        self._done = self._done & ~which
        self._rows = rows_of(observation)

    def step(self, actions: np.ndarray, active: np.ndarray) -> PlayStep:
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
        return PlayStep(reward, terminated, truncated, success, info)

    def observe(self, lanes: np.ndarray | None = None, keys: tuple[str, ...] | None = None) -> Rows:
        return take(self._rows, lanes, keys)

    def roots(self) -> np.ndarray | None:
        return roots_of(self.env.unwrapped)

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
        self.lanes: Lanes = env.unwrapped.lanes
        self._seen: Rows | None = None  # what the last step showed, while it is true
        self.num_envs = self.lanes.count
        batch = isinstance(env, VectorEnv)
        self.observation_space = env.single_observation_space if batch else env.observation_space
        self.action_space = discrete(env.single_action_space if batch else env.action_space)

    @property
    def tree_world(self) -> TreeWorld | None:
        """The token tree that is walked, if it is one."""
        return self.lanes.world if isinstance(self.lanes.world, TreeWorld) else None

    def reset(self, which: np.ndarray, *, roots: np.ndarray | None = None, seed: Seed = None) -> None:
        if which.all() and (seed is not None or not self.lanes.key.any()):  # all-zero keys were never seeded
            self.lanes.seed(np.random.default_rng(seed).integers(1, 2**63, size=self.num_envs).astype(np.uint64))
        self.lanes.begin(which, roots)
        self._seen = None

    def step(self, actions: np.ndarray, active: np.ndarray) -> PlayStep:
        outcome, self._seen = self.lanes.step(actions, next_step_reset=False)
        success = outcome.success.astype(np.float32)
        return PlayStep(outcome.reward, outcome.terminated, outcome.truncated, success, {})

    def observe(self, lanes: np.ndarray | None = None, keys: tuple[str, ...] | None = None) -> Rows:
        if self._seen is not None:
            return take(self._seen, lanes, keys)
        every = lanes is None or len(lanes) == self.num_envs
        return take(self.lanes.observe(None if every else lanes), None, keys)

    def roots(self) -> np.ndarray | None:
        return self.lanes.world.pool

    def state(self) -> dict[str, np.ndarray]:
        return self.lanes.state()

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.lanes.restore(state)
        self._seen = None


def has_lanes(env: Any) -> bool:
    """Returns whether an environment, single or vector, is one of ours: lanes of a world that can be looked into."""
    return isinstance(getattr(env.unwrapped, "lanes", None), Lanes)
