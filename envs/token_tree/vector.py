"""TokenTree-v0 as a native batch: all lanes step in one compiled call, without subprocesses."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from treegym.envs.native import NativeVectorEnv
from treegym.envs.single import RENDER_MODES, check_keywords
from treegym.envs.token_tree import render
from treegym.envs.token_tree.env import KEYWORDS
from treegym.envs.token_tree.forest import make_lanes
from treegym.envs.token_tree.lanes import TreeStep
from treegym.tree.token_tree import TokenTree

__all__ = ["TokenTreeVectorEnv"]


class TokenTreeVectorEnv(NativeVectorEnv):
    """B episodes of TokenTree at once; lane i seeded with s walks as the single environment seeded with s + i.

    Takes the keyword arguments of `TokenTreeEnv`, and:
        num_envs: B.
        max_episode_steps: truncates episodes that are longer, beside the token budget.
        autoreset_mode: "NextStep" (default), "SameStep" or "Disabled".
    """

    world: Any  # of a tree, or of a forest
    lanes: Any
    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 4}  # noqa: RUF012 (copied per instance)
    NAME: ClassVar = "TokenTree"
    KEYWORDS: ClassVar = (*KEYWORDS, "num_envs", "max_episode_steps", "autoreset_mode")

    def __init__(
        self,
        num_envs: int = 1,
        *,
        tree: str | TokenTree | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        multi_objective: bool = False,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        check_keywords(self.NAME, (name for name in settings if name != "grower"), self.KEYWORDS)
        self._take_arguments(num_envs, max_episode_steps, autoreset_mode, render_mode)
        self.world, self.lanes = make_lanes(tree, num_envs, max_steps=max_episode_steps, **settings)
        self.layout = self.world.layout
        self.multi_objective = multi_objective
        self.single_observation_space = self.world.observation_space
        self.single_action_space = self.world.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.reward_space = batch_space(self.world.reward_space, num_envs)
        self._shaped = self.world.shaped
        self._weights = np.repeat(self.world.table.weights[:, None], num_envs, axis=1)  # [T, B]

    @property
    def tree(self) -> TokenTree:
        return self.world.tree

    @property
    def nodes(self) -> np.ndarray:
        """The node every lane stands on ``[B] int64`` (a copy)."""
        return self.lanes.node.copy()

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts episodes in all lanes, or in those of ``options["reset_mask"]``.

        ``options["roots"]`` gives each lane a prompt; -1 leaves it to chance. ``options["root"]`` gives all the same.
        """
        which, roots = self._reset_options(options)
        self._seed_lanes(seed)
        self.lanes.begin(which, roots)
        seen = self.lanes.observe()
        flags = np.zeros((2, self.num_envs), bool)
        root = self.lanes.roots()
        vector = np.zeros((self.num_envs, len(self.world.table.names)), np.float32)
        return seen, self._info(seen, vector, flags[0], flags[1], root)

    def step(self, actions: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Moves every lane one step; what happens to lanes that are done depends on the autoreset mode."""
        actions = self._checked_actions(actions)
        lanes = self.lanes
        outcome, seen = lanes.step(actions, next_step_reset=self.autoreset_mode is AutoresetMode.NEXT_STEP)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and lanes.done.any():
            seen, info = self._restart(outcome, seen)
        else:
            told = outcome.vector, outcome.success, outcome.illegal, outcome.root, outcome.failed
            info = self._info(seen, *told, lanes.node)
        reward = outcome.reward
        if self.multi_objective:
            reward = info["vector_reward"] - np.float32(self.world.illegal_penalty) * outcome.illegal[:, None]
        return seen, reward, outcome.terminated, outcome.truncated, info

    def _restart(self, outcome: TreeStep, last: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begins the next episode at once in lanes that are done; their last observation and info go along."""
        stepped, done = self.nodes, self.lanes.done.copy()
        flags = outcome.success, outcome.illegal
        final_info = self._info(last, outcome.vector, *flags, outcome.root, outcome.failed, stepped)
        self.lanes.begin(done)
        seen = self.lanes.observe()
        final_obs = self._final_observations(done, last)
        # The step's reward and flags belong to the step, whichever episode its lane is in now; success to the ended.
        none = np.zeros(self.num_envs, bool)
        root, failed = self.lanes.roots(), outcome.failed.copy()
        info = self._info(seen, outcome.vector.copy(), none, outcome.illegal.copy(), root, failed, stepped)
        info |= {"final_obs": final_obs, "_final_obs": done, "final_info": final_info, "_final_info": done.copy()}
        return seen, info

    def _info(
        self,
        seen: dict[str, np.ndarray],
        vector: np.ndarray,
        success: np.ndarray,
        illegal: np.ndarray,
        root: np.ndarray,
        failed: np.ndarray | None = None,
        stepped: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Returns the info of a step to the nodes `stepped` ``[B]``, or of a reset; arrays are kept as they are."""
        table = self.world.table
        raw, weights = vector.T.copy(), self._weights.copy()  # [T, B] each: one row per term
        if failed is None or stepped is None:
            failed = np.zeros(self.num_envs, bool)
        elif failed.any():
            raw[:, failed] = self.world.raw_terms(stepped[failed]).T
        info = {
            "action_mask": seen["action_mask"].copy(),
            "root": root,
            "is_success": success,
            "illegal_action": illegal,
            "reward_failed": failed,
            "vector_reward": vector,
            "reward_terms": {
                name: {"raw": row, "weight": weight}
                for name, row, weight in zip(table.names, raw, weights, strict=True)
            },
        }
        if self._shaped:
            paid = np.zeros(self.num_envs) if stepped is None else np.where(illegal, 0.0, self.world.raw(stepped))
            info["raw_reward"] = paid - self.world.illegal_penalty * illegal
        present = np.ones((len(info), self.num_envs), bool)
        return info | {f"_{name}": row for name, row in zip(info, present, strict=True)}

    def set_progress(self, progress: float) -> None:
        """Tells annealed reward terms how far training is, from 0 to 1."""
        self.world.set_progress(progress)

    def texts(self) -> list[str]:
        """Returns the text each lane has generated so far."""
        return [self.tree.text(int(node)) for node in self.lanes.node]

    def clone_state(self) -> dict[str, np.ndarray]:
        """Returns the state of all lanes, for planners to come back to."""
        return self.lanes.state()

    def _drawing(self) -> tuple[Any, list[int]]:
        return render, self.lanes.node.tolist()
