"""What every native batch shares: seeding lane by lane, reset options, autoreset modes, checks of actions.

A subclass has `num_envs`, `lanes` and `autoreset_mode`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv

from treegym.checks import is_whole
from treegym.display import plain
from treegym.envs.lanes import Lanes
from treegym.envs.single import checked_options, checked_render_mode, checked_root, whole_actions
from treegym.errors import ConfigError

__all__ = ["NativeVectorEnv"]


class NativeVectorEnv(VectorEnv):
    """B episodes that step in one compiled call; lane i seeded with s walks as the single environment seeded s + i."""

    NAME: ClassVar[str] = ""
    lanes: Lanes
    autoreset_mode: AutoresetMode
    _seeded = False

    def _take_arguments(
        self, num_envs: int, max_episode_steps: int | None, autoreset_mode: str | AutoresetMode, render_mode: str | None
    ) -> None:
        """Keeps the arguments that every native batch takes; raises ConfigError for one that cannot be used."""
        if not _is_count(num_envs):
            raise ConfigError(f"num_envs is {num_envs!r}; at least one environment is needed")
        if max_episode_steps is not None and not _is_count(max_episode_steps):
            raise ConfigError(f"max_episode_steps is {max_episode_steps!r}; a whole number from 1 was expected")
        self.num_envs = int(num_envs)
        self.autoreset_mode = _autoreset_of(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = checked_render_mode(render_mode)

    def _seed_lanes(self, seed: int | list[int | None] | None) -> None:
        """Gives every lane the key that a single environment of its seed would draw."""
        if isinstance(seed, int | np.integer):
            VectorEnv.reset(self, seed=int(seed))
            seed = [int(seed) + lane for lane in range(self.num_envs)]
        if seed is not None:
            listed = isinstance(seed, list | tuple) or (isinstance(seed, np.ndarray) and seed.ndim == 1)
            if not listed or not all(one is None or is_whole(one) for one in seed):
                raise ConfigError(f"seed is {str(seed)[:80]}; a whole number was expected, or one (or None) per lane")
            if len(seed) != self.num_envs:
                raise ConfigError(f"{len(seed)} seeds came for {self.num_envs} environments; pass one each")
            keys = [_lane_key(one) if one is not None else self.np_random.integers(2**63) for one in seed]
            self.lanes.seed(np.array(keys, np.uint64))
        elif not self._seeded:
            self.lanes.seed(self.np_random.integers(2**63, size=self.num_envs).astype(np.uint64))
        self._seeded = True

    def _reset_options(self, options: dict[str, Any] | None) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Returns which lanes to reset ``[B] bool`` and their roots ``[B] int64``, each None if not asked.

        ``options["roots"]`` gives each lane a root, -1 leaves it to chance; ``options["root"]`` gives all the same.
        """
        options = dict(checked_options(options))
        if (root := checked_root(options)) is not None:
            options = {"roots": np.full(self.num_envs, root), **options}
        which, roots = options.get("reset_mask"), options.get("roots")
        if which is not None:
            which = np.asarray(which)
            if which.shape != (self.num_envs,) or which.dtype != np.bool_ or not which.any():
                raise ConfigError(
                    f"options['reset_mask'] must be {self.num_envs} booleans, at least one of them true; "
                    f"got {which.dtype} {which.shape}"
                )
        if roots is not None:
            roots = np.asarray(roots)
            if roots.shape != (self.num_envs,) or roots.dtype.kind not in "iu":
                raise ConfigError(
                    f"options['roots'] must be {self.num_envs} whole numbers (-1 for any root); "
                    f"got {roots.dtype} {roots.shape}"
                )
            roots = roots.astype(np.int64)
        return which, roots

    def _checked_actions(self, actions: Any) -> np.ndarray:
        """Returns actions ``[B] int64``; raises where their number is wrong or a lane has ended and is not reset."""
        if not self._seeded:
            raise ConfigError("step() was called before reset(); call reset() first")
        actions = whole_actions(actions)
        if actions.shape != (self.num_envs,):
            raise ConfigError(f"{actions.shape} actions came for {self.num_envs} environments; expected one each")
        if self.autoreset_mode is AutoresetMode.DISABLED and self.lanes.done.any():
            lane = int(np.flatnonzero(self.lanes.done)[0])
            raise ConfigError(
                f"lane {lane} has ended and autoreset is off; reset it with options={{'reset_mask': ...}} first"
            )
        return actions

    def _final_observations(self, done: np.ndarray, last: dict[str, np.ndarray]) -> np.ndarray:
        """Returns what each lane of ``done [B] bool`` saw last, as Gymnasium has it: ``[B]`` dicts, None elsewhere."""
        final = np.full(self.num_envs, None, object)
        for lane in np.flatnonzero(done):
            final[lane] = {name: rows[lane].copy() for name, rows in last.items()}
        return final

    def action_masks(self) -> np.ndarray:
        """Returns which actions are legal in every lane ``[B, K] bool``."""
        return self.lanes.observe()["action_mask"].astype(bool)

    def restore_state(self, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Goes back to a cloned state and returns its observations."""
        self.lanes.restore(state)
        return self.lanes.observe()

    def _drawing(self) -> tuple[Any, Any]:
        """Returns the module that draws (`as_text`, `as_image` of a world and a place), and where the lanes stand."""
        raise NotImplementedError

    def render(self) -> tuple[Any, ...] | None:
        """Draws every lane: texts for "ansi", images for "rgb_array"."""
        if self.render_mode is None:
            return None
        module, places = self._drawing()
        if self.render_mode == "ansi":
            return tuple(plain(module.as_text(self.lanes.world, place), lines=True) for place in places)
        return tuple(module.as_image(self.lanes.world, place) for place in places)


def _lane_key(seed: int) -> int:
    """Returns what the single environment draws as its key after ``reset(seed=seed)``."""
    return int(seeding.np_random(seed)[0].integers(2**63, size=1)[0])


def _is_count(value: Any) -> bool:
    return is_whole(value) and bool(value >= 1)


def _autoreset_of(mode: str | AutoresetMode) -> AutoresetMode:
    """Returns an autoreset mode by its value; raises ConfigError for an unknown one."""
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(repr(m.value) for m in AutoresetMode)
        raise ConfigError(f"autoreset_mode is {mode!r}; it must be one of {known}") from None
