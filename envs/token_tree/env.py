"""TokenTree-v0: one episode at a time."""

from __future__ import annotations

import inspect
import math
from typing import Any, ClassVar

import numpy as np

from treegym.envs.single import RENDER_MODES, NativeEnv, check_keywords, checked_render_mode, whole_action
from treegym.envs.token_tree import render
from treegym.envs.token_tree.forest import make_lane
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError, RewardError
from treegym.tree.token_tree import TokenTree

__all__ = ["KEYWORDS", "TokenTreeEnv"]

KEYWORDS = (
    *(name for name in inspect.signature(TreeWorld).parameters if name != "grower"),
    *("multi_objective", "render_mode"),
)


class TokenTreeEnv(NativeEnv):
    """Walks a tree of tokens: an action chooses one of the children that language models proposed.

    Keyword arguments (all JSON-serialisable):
        tree: a `.tree` file, a forest's folder, ``"synthetic:roots=64,depth=8,..."``, or None for the bundled tree.
        split: which prompts: train, validation, test or all.
        reward: reward terms by name, with weights; None is ``{"verifier": 1.0}``.
        terminal: what ends a text: "eos", "punctuation", ... or a composition.
        max_tokens: the token budget; using it up truncates.
        max_children: K, the number of actions.
        view: "features", or "tokens" for token ids beside them.
        illegal_penalty: what an action that names no child costs.
        curriculum: "middle" or "sample": begin at prompts that the primary solves now and then (`tree/curriculum.py`).
        multi_objective: return every reward term instead of their sum.
        render_mode: "ansi", "rgb_array" or "human".
    """

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 4}  # noqa: RUF012 (as the base declares it)
    NAME: ClassVar = "TokenTree"

    def __init__(
        self,
        tree: str | TokenTree | None = None,
        *,
        multi_objective: bool = False,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        check_keywords(self.NAME, (name for name in settings if name != "grower"), KEYWORDS)
        self.render_mode = checked_render_mode(render_mode)
        self.lanes = make_lane(tree, **settings)
        self.world: TreeWorld = self.lanes.world  # in a forest that of the episode's tree
        self.multi_objective = multi_objective
        self.layout = self.world.layout
        self.observation_space = self.world.observation_space
        self.action_space = self.world.action_space
        self.reward_space = self.world.reward_space
        self._names = self.world.table.names
        self._terms = [
            (name, float(weight)) for name, weight in zip(self._names, self.world.table.weights, strict=True)
        ]
        self._pieces = [piece.encode("latin-1") for piece in self.tree.tokens]
        self._root = 0
        self._text = b""
        self._shaped = self.world.shaped

    @property
    def tree(self) -> TokenTree:
        return self.world.tree

    @property
    def node(self) -> int:
        """The node the episode stands on."""
        return self.lanes.at[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode at a random prompt of the split, or at ``options={"root": i}``."""
        seen = self._begin(seed, options)
        self.world, self._root = self.lanes.world, int(self.lanes.roots()[0])
        self._text = b""
        return seen, self._info(seen, np.zeros(len(self._names), np.float32), False, False)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Goes to the chosen child; an action that names none costs a penalty and moves nothing."""
        lane = self.lanes
        if lane.ended[0]:
            raise ConfigError("step() was called on an episode that has ended; call reset() first")
        seen = lane.move(whole_action(action))
        illegal = lane.illegal[0]
        if not illegal:
            self._text += self._pieces[self.world.tables.token.item(lane.at[0])]
        info = self._info(seen, lane.vector.copy(), lane.success[0], illegal, stepped=True)
        reward: Any = lane.reward[0]
        if not math.isfinite(reward):
            raise RewardError(f"the reward at root {self._root}, path {info['text']!r} is {reward}")
        if self.multi_objective:
            reward = info["vector_reward"] - np.float32(self.world.illegal_penalty if illegal else 0.0)
        if self.render_mode == "human":
            self.render()
        return seen, reward, lane.terminated[0], lane.truncated[0], info

    def _info(
        self, seen: dict[str, np.ndarray], vector: np.ndarray, success: bool, illegal: bool, *, stepped: bool = False
    ) -> dict[str, Any]:
        failed = stepped and self.lanes.failed[0]
        # In the table a failure is NaN, never a score.
        raw = self.world.raw_terms(self.lanes.node)[0] if failed else vector
        info = {
            "action_mask": seen["action_mask"].copy(),
            "root": self._root,
            "text": self._text.decode("utf-8", "replace"),
            "is_success": success,
            "illegal_action": illegal,
            "reward_failed": failed,
            "reward_terms": {
                name: {"raw": value, "weight": weight}
                for (name, weight), value in zip(self._terms, raw.tolist(), strict=True)
            },
            "vector_reward": vector,
        }
        if self._shaped:
            paid = self.world.raw(self.lanes.node)[0] if stepped and not illegal else 0.0
            info["raw_reward"] = float(paid) - self.world.illegal_penalty * illegal
        return info

    def set_progress(self, progress: float) -> None:
        """Tells annealed reward terms how far training is, from 0 to 1."""
        self.lanes.over.set_progress(progress)

    def clone_state(self) -> dict[str, Any]:
        """Returns the state of the episode, for planners to come back to."""
        return {**self.lanes.state(), "text": self._text}

    def restore_state(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Goes back to a cloned state and returns its observation."""
        self.lanes.restore(state)
        self._text = state["text"]
        self.world, self._root = self.lanes.world, int(self.lanes.roots()[0])
        return self._see()

    def _drawing(self) -> tuple[Any, int]:
        return render, self.node
