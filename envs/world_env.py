"""The single environment of a world: whatever looks things up in tables and steps lanes by a compiled kernel.

A world has a layout, spaces, terms of its vector reward with their weights, an illegal penalty, lanes, and words for
where a lane stands. `TokenTree-v0` has an environment of its own, which knows live trees and tokens, too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from gymnasium.envs.registration import EnvSpec

from treegym.envs.single import RENDER_MODES, NativeEnv, check_keywords, checked_render_mode, whole_action
from treegym.errors import ConfigError

__all__ = ["WorldEnv", "Worlds"]


class Worlds(Protocol):
    """The worlds of one environment, and the keyword arguments they take."""

    @property
    def name(self) -> str: ...

    @property
    def keywords(self) -> tuple[str, ...]: ...

    def make(self, settings: Mapping[str, Any]) -> Any:
        """Returns the world of an environment's keyword arguments."""
        ...


class WorldEnv(NativeEnv):
    """One lane of a world."""

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 2}  # noqa: RUF012 (as the base declares it)
    WORLDS: ClassVar[Worlds]

    def __init__(
        self, *, multi_objective: bool = False, render_mode: str | None = None, world: Any = None, **settings: Any
    ) -> None:
        check_keywords(self.NAME, settings, (*self.WORLDS.keywords, "multi_objective", "render_mode"))
        self.render_mode = checked_render_mode(render_mode)
        self.world = self.WORLDS.make(settings) if world is None else world
        self.multi_objective = multi_objective
        self.lanes = self.world.lanes(1)
        self.layout = self.world.layout
        self.observation_space = self.world.observation_space
        self.action_space = self.world.action_space
        self.reward_space = self.world.reward_space
        self._action = np.zeros(1, np.int64)
        self._spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """The spec it was made from; marked nondeterministic where candidates are measured live."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None and self.world.live and not spec.nondeterministic:
            spec = copy.deepcopy(spec)
            spec.nondeterministic = True
        self._spec = spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode at a random root of the split, or at ``options={"root": i}``."""
        seen = self._begin(seed, options)
        return seen, self._info(seen, np.zeros(len(self.world.terms), np.float32), illegal=False, success=False)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Takes one action; one that is not legal costs a penalty and changes nothing else."""
        if self.lanes.done[0]:
            raise ConfigError("step() was called on an episode that has ended; call reset() first")
        self._action[0] = whole_action(action)
        outcome = self.lanes.advance(self._action, next_step_reset=False)
        illegal = bool(outcome.illegal[0])
        seen = self._see()
        info = self._info(seen, outcome.vector[0], illegal=illegal, success=bool(outcome.success[0]))
        reward: Any = float(outcome.reward[0])
        if self.multi_objective:
            reward = outcome.vector[0] - np.float32(self.world.illegal_penalty if illegal else 0.0)
        if self.render_mode == "human":
            self.render()
        return seen, reward, bool(outcome.terminated[0]), bool(outcome.truncated[0]), info

    def _info(self, seen: dict[str, np.ndarray], vector: np.ndarray, *, illegal: bool, success: bool) -> dict[str, Any]:
        weights = self.world.term_weights(self.lanes.place)[0].tolist()
        return {
            "action_mask": seen["action_mask"].copy(),
            "root": int(self.lanes.root[0]),
            "text": self.world.text(self.lanes.place[0]),
            "is_success": success,
            "illegal_action": illegal,
            "reward_terms": {
                name: {"raw": raw, "weight": weight}
                for name, raw, weight in zip(self.world.terms, vector.tolist(), weights, strict=True)
            },
            "vector_reward": vector.copy(),
        }

    def clone_state(self) -> dict[str, Any]:
        """Returns the state of the episode, for planners to come back to."""
        return self.lanes.state()

    def restore_state(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Goes back to a cloned state and returns its observation."""
        self.lanes.restore(state)
        return self._see()

    def _drawing(self) -> tuple[Any, np.ndarray]:
        return self.world.drawing(), self.lanes.place[0]
