"""What CandidateSelection and OptimizationPipeline share: one episode of a world at a time."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from treegym.envs.selection import render
from treegym.envs.selection.lanes import Lanes
from treegym.envs.single import RENDER_MODES, NativeEnv, check_keywords, checked_render_mode
from treegym.errors import ConfigError

__all__ = ["TERMS", "WorldEnv", "action_space", "observation_space", "reward_space"]

TERMS = ("speed", "memory", "accuracy", "cost")


def observation_space(world: Any) -> spaces.Dict:
    """Returns the one-level Dict space of observations."""
    return spaces.Dict(
        {
            "observations": spaces.Box(world.low, world.high, dtype=np.float32),
            "action_mask": spaces.Box(0, 1, (world.num_actions,), np.int8),
        }
    )


def action_space(world: Any) -> spaces.Discrete:
    """Returns one action for each candidate or strategy, and one more."""
    return spaces.Discrete(world.num_actions)


def reward_space(world: Any) -> spaces.Box:
    """Returns the space of the vector of objectives: gains in speed, memory and accuracy score, and the cost."""
    return spaces.Box(-np.inf, np.inf, (len(TERMS),), np.float32)


class WorldEnv(NativeEnv):
    """One lane of a world. Subclasses say which world (`make_world`) and which keywords it takes."""

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 2}  # noqa: RUF012 (as the base declares it)
    KEYWORDS: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, *, multi_objective: bool = False, render_mode: str | None = None, world: Any = None, **settings: Any
    ) -> None:
        check_keywords(self.NAME, settings, (*self.KEYWORDS, "multi_objective", "render_mode"))
        self.render_mode = checked_render_mode(render_mode)
        self.world = self.make_world(settings) if world is None else world
        self.multi_objective = multi_objective
        self.lanes = Lanes(self.world, 1)
        self.layout = self.world.layout
        self.observation_space = observation_space(self.world)
        self.action_space = action_space(self.world)
        self.reward_space = reward_space(self.world)
        self._action = np.zeros(1, np.int64)
        self._spec: EnvSpec | None = None

    @classmethod
    def make_world(cls, settings: dict[str, Any]) -> Any:
        """Returns the world of these keyword arguments."""
        raise NotImplementedError

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
        return seen, self._info(seen, np.zeros(len(TERMS), np.float32), illegal=False, success=False)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Takes one action; one that is not legal costs a penalty and changes nothing else."""
        if self.lanes.done[0]:
            raise ConfigError("step() was called on an episode that has ended; call reset() first")
        self._action[0] = action
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
        weights = [*self.world.weights.tolist(), 1.0]
        return {
            "action_mask": seen["action_mask"].copy(),
            "root": int(self.lanes.root[0]),
            "text": self.world.text(self.lanes.state[0]),
            "is_success": success,
            "illegal_action": illegal,
            "reward_terms": {
                name: {"raw": raw, "weight": weight}
                for name, raw, weight in zip(TERMS, vector.tolist(), weights, strict=True)
            },
            "vector_reward": vector.copy(),
        }

    def clone_state(self) -> dict[str, Any]:
        """Returns the state of the episode, for planners to come back to."""
        return self.lanes.snapshot()

    def restore_state(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Goes back to a cloned state and returns its observation."""
        self.lanes.restore(state)
        return self._see()

    def _drawing(self) -> tuple[Any, np.ndarray]:
        return render, self.lanes.state[0]
