"""`Baseline`: the way of use that agents without learning share with those that learn.

Letters: B rows, K children.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from treegym.agents.play.standing import Place, place_of, stand
from treegym.agents.play.world import World
from treegym.agents.play.worlds import make_world
from treegym.agents.policies.base import MASK, as_rows, mask_of
from treegym.errors import ConfigError

__all__ = ["Baseline", "Planning"]


class Baseline:
    """Chooses without learning.

    Args:
        env: the environment (an id, single, vector or `VecEnv`) it acts in.
        seed: the seed of what is random.
        **ignored_policy: ``policy``, ``verbose`` and ``device`` are taken and not used, so that every agent can be made
            by the same call.
    """

    learns: ClassVar[bool] = False  # for benchmarks: nothing to train
    policy = None

    def __init__(self, env: Any, *, seed: int | None = None, **ignored_policy: Any) -> None:
        unknown = set(ignored_policy) - {"policy", "verbose", "device", "tensorboard_log"}
        if unknown:
            raise ConfigError(f"{type(self).__name__} has no switch {sorted(unknown)[0]!r}")
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.num_timesteps = 0
        self.set_env(env)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Goes on in another environment."""
        world = make_world(env)
        self.world: World = world
        self.observation_space, self.action_space = world.observation_space, world.action_space
        self._known = place_of([env if not isinstance(env, str) else world.env, world.env])
        self._enter_world()

    def watch(self, env: Any) -> None:
        """Tells the agent of another environment it will be asked to act in."""
        self._known = [*place_of([env]), *self._known]

    def watch_world(self, world: World) -> None:
        """The same for a world as it is, without an environment around it."""
        if all(known is not world for known in self._known):
            self._known = [world, *self._known]

    def _enter_world(self) -> None:
        """Checks that the world has what this baseline needs, and prepares it."""

    def learn(self, total_timesteps: int = 0, callback: Any = None, **kwargs: Any) -> Self:
        """Returns itself: there is nothing to learn."""
        return self

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Returns an action for each observation, and `state` unchanged."""
        rows, batched = as_rows(observation, self.observation_space)
        if action_masks is not None:
            rows[MASK] = np.asarray(action_masks).reshape(-1, int(self.action_space.n))
        actions = np.asarray(self.choose(rows, deterministic=deterministic), np.int64)
        return (actions if batched else actions[0]), state

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        """Returns an action for each row ``[B] int64``."""
        raise NotImplementedError

    def mask(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        """Returns which children are legal ``[B, K] bool``."""
        return mask_of(rows, int(self.action_space.n))

    def layout(self) -> Any:
        """Returns the observation's layout, or raises ConfigError if the environment does not tell it."""
        layout = getattr(self.world.env.unwrapped, "layout", None)
        if layout is None:
            raise ConfigError(
                f"{type(self).__name__} reads features of children by name, and this environment has no layout "
                "(env.unwrapped.layout)"
            )
        return layout

    def columns(self, rows: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
        """Returns some features of every child ``[B, K, len(names)] float32``."""
        layout = self.layout()
        _, children = layout.split(rows["observations"])
        return children[..., [layout.child_column(name) for name in names]]

    def teachers(self) -> list[str]:
        """Returns the names of the teachers' columns, or raises ConfigError if there are none."""
        names = [name for name in self.layout().child if name.startswith("teacher:")]
        if not names:
            raise ConfigError(f"{type(self).__name__} follows teachers, and this environment has none")
        return names


class Planning(Baseline):
    """A baseline that must know the state, not only what is seen of it."""

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        place = stand(self._known, rows)
        if place is None:
            raise ConfigError(
                f"{type(self).__name__} plans, and cannot place this observation in an environment it knows: call "
                "set_env(env) or watch(env) with the environment you step"
            )
        return self.plan(place, rows)

    def plan(self, place: Place, rows: dict[str, np.ndarray]) -> np.ndarray:
        """Returns an action for each row ``[B] int64``."""
        raise NotImplementedError
