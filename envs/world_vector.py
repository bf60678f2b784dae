"""The native batch of a world: all lanes step in one compiled call."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from treegym.envs.native import NativeVectorEnv
from treegym.envs.single import RENDER_MODES, check_keywords
from treegym.envs.world_env import Worlds

__all__ = ["WorldVectorEnv"]


class WorldVectorEnv(NativeVectorEnv):
    """B episodes at once; lane i seeded with s walks as the single environment seeded with s + i.

    Takes the keyword arguments of the single environment, and:
        num_envs: B.
        max_episode_steps: truncates episodes that are longer, beside `max_iterations`.
        autoreset_mode: "NextStep" (default), "SameStep" or "Disabled".
    """

    lanes: Any
    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 2}  # noqa: RUF012 (copied per instance)
    WORLDS: ClassVar[Worlds]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        multi_objective: bool = False,
        render_mode: str | None = None,
        world: Any = None,
        **settings: Any,
    ) -> None:
        own = ("num_envs", "max_episode_steps", "autoreset_mode", "multi_objective", "render_mode")
        check_keywords(self.NAME, settings, (*self.WORLDS.keywords, *own))
        self._take_arguments(num_envs, max_episode_steps, autoreset_mode, render_mode)
        self.world = self.WORLDS.make(settings) if world is None else world
        self.layout = self.world.layout
        self.lanes = self.world.lanes(self.num_envs, max_steps=max_episode_steps)
        self.multi_objective = multi_objective
        self.single_observation_space = self.world.observation_space
        self.single_action_space = self.world.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.reward_space = batch_space(self.world.reward_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts episodes in all lanes, or in those of ``options["reset_mask"]``.

        ``options["roots"]`` gives each lane a root; -1 leaves it to chance. ``options["root"]`` gives all the same.
        """
        self._seed_lanes(seed)
        which, roots = self._reset_options(options)
        self.lanes.begin(which, roots)
        seen = self.lanes.observe()
        nothing = np.zeros(self.num_envs, bool)
        vector = np.zeros((self.num_envs, len(self.world.terms)), np.float32)
        return seen, self._info(seen, vector, illegal=nothing, success=nothing)

    def step(self, actions: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Moves every lane one step; what happens to lanes that are done depends on the autoreset mode."""
        actions = self._checked_actions(actions)
        lanes = self.lanes
        outcome = lanes.advance(actions, next_step_reset=self.autoreset_mode is AutoresetMode.NEXT_STEP)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and lanes.done.any():
            seen, info = self._restart(outcome)
        else:
            seen = lanes.observe()
            info = self._info(seen, outcome.vector, illegal=outcome.illegal, success=outcome.success)
        reward = outcome.reward
        if self.multi_objective:
            reward = outcome.vector - np.float32(self.world.illegal_penalty) * outcome.illegal[:, None]
        return seen, reward, outcome.terminated, outcome.truncated, info

    def _restart(self, outcome: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begins the next episode at once in lanes that are done; their last observation and info go along."""
        last = self.lanes.observe()
        info = self._info(last, outcome.vector, illegal=outcome.illegal, success=outcome.success)
        done = self.lanes.done.copy()
        self.lanes.begin(done)
        seen = self.lanes.observe()
        final_obs = self._final_observations(done, last)
        final_info = {
            name: value if name.startswith("_") or name == "reward_terms" else np.where(_wide(done, value), value, 0)
            for name, value in info.items()
        }
        began = self._info(seen, outcome.vector, illegal=outcome.illegal & ~done, success=np.zeros(self.num_envs, bool))
        return seen, began | {
            "final_obs": final_obs, "_final_obs": done, "final_info": final_info, "_final_info": done.copy(),
        }  # fmt: skip

    def _info(
        self, seen: dict[str, np.ndarray], vector: np.ndarray, *, illegal: np.ndarray, success: np.ndarray
    ) -> dict[str, Any]:
        weights = self.world.term_weights(self.lanes.place)
        info = {
            "action_mask": seen["action_mask"].copy(),
            "root": self.lanes.root.copy(),
            "is_success": success.copy(),
            "illegal_action": illegal.copy(),
            "vector_reward": vector.copy(),
            "reward_terms": {
                name: {"raw": vector[:, t].copy(), "weight": weights[:, t].copy()}
                for t, name in enumerate(self.world.terms)
            },
        }
        present = np.ones((len(info), self.num_envs), bool)
        return info | {f"_{name}": row for name, row in zip(info, present, strict=True)}

    def texts(self) -> list[str]:
        """Returns each lane's episode in words."""
        return [self.world.text(state) for state in self.lanes.place]

    def clone_state(self) -> dict[str, np.ndarray]:
        """Returns the state of all lanes, for planners to come back to."""
        return self.lanes.state()

    def _drawing(self) -> tuple[Any, np.ndarray]:
        return self.world.drawing(), self.lanes.place


def _wide(done: np.ndarray, value: np.ndarray) -> np.ndarray:
    return done.reshape(-1, *[1] * (value.ndim - 1))
