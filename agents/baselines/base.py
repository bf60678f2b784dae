"""`Baseline`: the interface that agents without learning share with those that learn.

Letters: B rows, K children.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from treegym.agents.costs import Costs
from treegym.agents.masking import mask_of
from treegym.agents.play.acting import Acting
from treegym.agents.play.standing import Place
from treegym.agents.play.world import World
from treegym.agents.play.worlds import make_world
from treegym.errors import ConfigError

__all__ = ["Baseline", "Planning"]


class Baseline(Acting):
    """Chooses without learning.

    Args:
        env: the environment (an id, single, vector or `VecEnv`) it acts in.
        seed: the seed of what is random.
        **ignored_policy: ``policy``, ``verbose`` and ``device`` are accepted and ignored, so that every agent can be
            made by the same call.
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
        self.costs = Costs()
        self.set_env(env)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Goes on in another environment."""
        world = make_world(env)
        self.world: World = world
        self.observation_space, self.action_space = world.observation_space, world.action_space
        self.stands_in(env if not isinstance(env, str) else world.env, world.env)
        self._enter_world()

    def _enter_world(self) -> None:
        """Checks that the world has what this baseline needs, and prepares it."""

    def learn(self, total_timesteps: int = 0, callback: Any = None, **kwargs: Any) -> Self:
        """Returns itself: there is nothing to learn."""
        return self

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

    plans = True

    def decide(
        self, rows: dict[str, np.ndarray], state: Any, *, begun: bool, deterministic: bool
    ) -> tuple[np.ndarray, Any]:
        place = self.place(rows, state)
        if place is None:
            raise ConfigError(
                f"{type(self).__name__} plans, and cannot place this observation in an environment it knows: call "
                "set_env(env) or watch(env) with the environment you step"
            )
        return self.plan(place, rows), state

    def plan(self, place: Place, rows: dict[str, np.ndarray]) -> np.ndarray:
        """Returns an action for each row ``[B] int64``."""
        raise NotImplementedError
