"""TokenTree-v0: one episode at a time."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from treegym.envs.token_tree import spaces
from treegym.envs.token_tree.lanes import Lane
from treegym.envs.token_tree.tree import TokenTree
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError, RewardError, suggest

__all__ = ["KEYWORDS", "RENDER_MODES", "TokenTreeEnv", "check_keywords", "checked_render_mode", "checked_root"]

RENDER_MODES = ["ansi", "rgb_array", "human"]
KEYWORDS = (
    "tree", "split", "reward", "terminal", "max_tokens", "max_children", "view", "illegal_penalty", "multi_objective",
    "render_mode",
)  # fmt: skip


def check_keywords(unknown: dict[str, Any], known: tuple[str, ...] = KEYWORDS) -> None:
    """Raises ConfigError for a keyword argument the environment does not have."""
    for name in unknown:
        raise ConfigError(f"TokenTree has no keyword argument {name!r}.{suggest(name, known)}")


def checked_render_mode(mode: str | None) -> str | None:
    """Returns a render mode, or raises ConfigError for an unknown one."""
    if mode is not None and mode not in RENDER_MODES:
        raise ConfigError(f"render_mode is {mode!r}; it must be one of {', '.join(RENDER_MODES)}")
    return mode


def checked_root(root: Any) -> int | None:
    """Returns ``options["root"]``, or raises ConfigError unless it could be the index of a root."""
    if root is not None and (isinstance(root, bool) or not isinstance(root, int | np.integer) or root < 0):
        raise ConfigError(f"options['root'] is {root!r}; expected a whole number from 0")
    return root if root is None else int(root)


class TokenTreeEnv(gym.Env):
    """Walks a tree of tokens: an action chooses one of the children that language models proposed.

    Keyword arguments (all JSON-serialisable):
        tree: a `.tree` file, ``"synthetic:roots=64,depth=8,..."``, or None for the bundled tree.
        split: which prompts: train, validation, test or all.
        reward: reward terms by name, with weights; None is ``{"verifier": 1.0}``.
        terminal: what ends a text: "eos", "punctuation", ... or a composition.
        max_tokens: the token budget; using it up truncates.
        max_children: K, the number of actions.
        view: "features", or "tokens" for token ids beside them.
        illegal_penalty: what an action that names no child costs.
        multi_objective: return every reward term instead of their sum.
        render_mode: "ansi", "rgb_array" or "human".
    """

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 4}  # noqa: RUF012 (as the base declares it)

    def __init__(
        self,
        tree: str | TokenTree | None = None,
        *,
        multi_objective: bool = False,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        check_keywords({name: value for name, value in settings.items() if name not in (*KEYWORDS, "grower")})
        self.render_mode = checked_render_mode(render_mode)
        self.world = TreeWorld(tree, **settings)
        self.multi_objective = multi_objective
        self.lanes = Lane(self.world)
        self.layout = self.world.layout
        self.observation_space = spaces.observation_space(self.world)
        self.action_space = spaces.action_space(self.world)
        self.reward_space = spaces.reward_space(self.world)
        self._names = self.world.table.names
        self._terms = [
            (name, float(weight)) for name, weight in zip(self._names, self.world.table.weights, strict=True)
        ]
        self._pieces = [piece.encode("latin-1") for piece in self.tree.tokens]
        self._seeded = False
        self._root = 0
        self._text = b""
        self._shaped = self.world.shaped
        self._viewer: Any = None

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
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self.lanes.seed(self.np_random.integers(2**63, size=1).astype(np.uint64))
            self._seeded = True
        root = checked_root((options or {}).get("root"))
        self.lanes.begin(roots=None if root is None else np.array([root], np.int64))
        self._root = int(self.world.root_index[self.node])
        self._text = b""
        seen = self._see()
        if self.render_mode == "human":
            self.render()
        return seen, self._info(seen, np.zeros(len(self._names), np.float32), False, False)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Goes to the chosen child; an action that names none costs a penalty and moves nothing."""
        lane = self.lanes
        if lane.ended[0]:
            raise ConfigError("step() was called on an episode that has ended; call reset() first")
        seen = lane.move(action)
        illegal = lane.illegal[0]
        if not illegal:
            self._text += self._pieces[self.world.token.item(lane.at[0])]
        info = self._info(seen, lane.vector.copy(), lane.success[0], illegal, stepped=True)
        reward: Any = lane.reward[0]
        if not math.isfinite(reward):
            raise RewardError(f"the reward at root {self._root}, path {info['text']!r} is {reward}")
        if self.multi_objective:
            reward = info["vector_reward"] - np.float32(self.world.illegal_penalty if illegal else 0.0)
        if self.render_mode == "human":
            self.render()
        return seen, reward, lane.terminated[0], lane.truncated[0], info

    def _see(self) -> dict[str, np.ndarray]:
        return {name: rows[0] for name, rows in self.lanes.observe().items()}

    def _info(
        self, seen: dict[str, np.ndarray], vector: np.ndarray, success: bool, illegal: bool, *, stepped: bool = False
    ) -> dict[str, Any]:
        failed = stepped and not illegal and self.world.table.failed.item(self.lanes.at[0])
        # In the table a failure is NaN, never a score.
        raw = self.world.table.terms[self.lanes.at[0]] if failed else vector
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
            paid = self.world.table.raw(self.lanes.node)[0] if stepped and not illegal else 0.0
            info["raw_reward"] = float(paid) - self.world.illegal_penalty * illegal
        return info

    def set_progress(self, progress: float) -> None:
        """Tells annealed reward terms how far training is, from 0 to 1."""
        self.world.set_progress(progress)

    def action_masks(self) -> np.ndarray:
        """Returns which actions are legal ``[K] bool`` (the name sb3-contrib looks for)."""
        return self.lanes.observe()["action_mask"][0].astype(bool)

    def clone_state(self) -> dict[str, Any]:
        """Returns the state of the episode, for planners to come back to."""
        return {**self.lanes.state(), "text": self._text}

    def restore_state(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Goes back to a cloned state and returns its observation."""
        self.lanes.restore(state)
        self._text = state["text"]
        self._root = int(self.world.root_index[self.node])
        return self._see()

    def render(self) -> Any:
        """Draws the path and the children: text for "ansi", an image for "rgb_array", a window for "human"."""
        from treegym.envs.token_tree import render

        if self.render_mode is None:
            gym.logger.warn("render() was called without a render_mode; pass render_mode='ansi' to gym.make")
            return None
        if self.render_mode == "ansi":
            return render.as_text(self.world, self.node)
        picture = render.as_image(self.world, self.node)
        if self.render_mode == "rgb_array":
            return picture
        self._viewer = self._viewer or render.Window("TokenTree", self.metadata["render_fps"])
        self._viewer.show(picture)
        return None

    def close(self) -> None:
        """Closes the window, if there is one; may be called again."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None
