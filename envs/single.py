"""What every single environment shares: checks of arguments, where an episode starts, drawing.

A subclass has `lanes` (one lane, with `seed`, `begin`, `observe`) and says what draws it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from treegym.checks import is_whole
from treegym.display import plain
from treegym.errors import ConfigError, require, suggest

__all__ = [
    "RENDER_MODES",
    "NativeEnv",
    "check_keywords",
    "checked_options",
    "checked_render_mode",
    "checked_root",
    "whole_action",
    "whole_actions",
]

MOST = 2**62  # what whole numbers stay below
RENDER_MODES = ["ansi", "rgb_array", "human"]


def check_keywords(name: str, given: Iterable[str], known: tuple[str, ...]) -> None:
    """Raises ConfigError for a keyword argument the environment does not have."""
    for keyword in given:
        if keyword not in known:
            raise ConfigError(f"{name} has no keyword argument {keyword!r}.{suggest(keyword, known)}")


def checked_render_mode(mode: str | None) -> str | None:
    """Returns a render mode, or raises ConfigError for an unknown one."""
    if mode is not None and mode not in RENDER_MODES:
        raise ConfigError(f"render_mode is {mode!r}; it must be one of {', '.join(RENDER_MODES)}")
    return mode


def checked_options(options: Any) -> Mapping[str, Any]:
    """Returns the options of a reset, or raises ConfigError for what is no table of them."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"the options are {str(options)[:80]!r}; a dict such as {{'root': 3}} was expected")
    return options


def checked_root(options: dict[str, Any] | None) -> int | None:
    """Returns ``options["root"]``, or raises ConfigError unless it could be the index of a root."""
    root = checked_options(options).get("root")
    if root is not None and not (is_whole(root) and 0 <= root < MOST):
        raise ConfigError(f"options['root'] is {root!r}; expected a whole number from 0")
    return root if root is None else int(root)


def whole_action(action: Any) -> int:
    """Returns an action of one environment, or raises ConfigError for what is not one whole number."""
    if type(action) is int and -MOST < action < MOST:
        return action
    found = whole_actions(action)
    if found.ndim:
        raise ConfigError(f"the action is {action!r}; one whole number was expected")
    return int(found)


def whole_actions(actions: Any) -> np.ndarray:
    """Returns actions as an int64 array of their shape, or raises ConfigError where one is not a whole number.

    NaN, fractions and words are refused, not rounded: whoever sends them has not decided on an action.
    """
    try:
        given = np.asarray(actions)
    except ValueError as error:  # lists of different lengths
        raise ConfigError(f"an action is {str(actions)[:80]}; whole numbers were expected") from error
    if given.dtype != np.int64:
        fits = given.dtype.kind in "iub" or (given.dtype.kind == "f" and bool((np.trunc(given) == given).all()))
        if not fits or bool((np.abs(given, dtype=np.float64) >= MOST).any()):
            raise ConfigError(f"an action is {str(actions)[:80]}; whole numbers were expected")
        given = given.astype(np.int64)
    return given


class NativeEnv(gym.Env):
    """One episode at a time, by the same lanes as the native batch."""

    NAME: ClassVar[str] = ""
    lanes: Any
    _seeded = False
    _viewer: Any = None

    def _drawing(self) -> tuple[Any, Any]:
        """Returns the module that draws (`as_text`, `as_image` of a world and a place), and where the lane stands."""
        raise NotImplementedError

    def _begin(self, seed: int | None, options: dict[str, Any] | None) -> dict[str, np.ndarray]:
        """Starts an episode, at the asked root if there is one, and returns its first observation."""
        gym.Env.reset(self, seed=seed)
        root = checked_root(options)
        if seed is not None or not self._seeded:
            self.lanes.seed(self.np_random.integers(2**63, size=1).astype(np.uint64))
            self._seeded = True
        self.lanes.begin(roots=None if root is None else np.array([root], np.int64))
        seen = self._see()
        if self.render_mode == "human":
            self.render()
        return seen

    def _see(self) -> dict[str, np.ndarray]:
        return {name: rows[0] for name, rows in self.lanes.observe().items()}

    def action_masks(self) -> np.ndarray:
        """Returns which actions are legal ``[K] bool`` (the name sb3-contrib looks for)."""
        return self.lanes.observe()["action_mask"][0].astype(bool)

    def render(self) -> Any:
        """Draws the episode and what may be chosen: text for "ansi", an image for "rgb_array", a window for "human"."""
        if self.render_mode is None:
            gym.logger.warn("render() was called without a render_mode; pass render_mode='ansi' to gym.make")
            return None
        module, place = self._drawing()
        if self.render_mode == "ansi":
            return plain(module.as_text(self.lanes.world, place), lines=True)
        picture = module.as_image(self.lanes.world, place)
        if self.render_mode == "rgb_array":
            return picture
        self._viewer = self._viewer or Window(self.NAME, self.metadata["render_fps"], picture)
        self._viewer.show(picture)
        return None

    def close(self) -> None:
        """Closes the window, if there is one; may be called again."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None


class Window:
    """A window that shows pictures at a steady rate, as large as the first one."""

    def __init__(self, title: str, fps: int, picture: np.ndarray) -> None:
        self._pygame = require("pygame", extra="render", purpose='render_mode="human"')
        self._pygame.display.init()
        self._pygame.display.set_caption(title)
        height, width, _ = picture.shape
        self._screen = self._pygame.display.set_mode((width, height))
        self._clock = self._pygame.time.Clock()
        self._fps = fps

    def show(self, picture: np.ndarray) -> None:
        """Puts a picture ``[H, W, 3] uint8`` on the screen and waits for the frame's time to pass."""
        self._pygame.event.pump()
        surface = self._pygame.surfarray.make_surface(np.swapaxes(picture, 0, 1))
        self._screen.blit(surface, (0, 0))
        self._pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        self._pygame.display.quit()
