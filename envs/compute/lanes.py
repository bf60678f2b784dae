"""Lanes of TestTimeCompute: the state of a batch of episodes. The single environment is one lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from treegym.envs.compute import transition
from treegym.envs.compute.transition import Outcome
from treegym.envs.states import ORIGIN, check_state
from treegym.errors import ConfigError

__all__ = ["Lanes"]


class Lanes:
    """B episodes. What a lane draws hangs on its key, the number of its episode and the step, nothing else.

    A lane that is put at a place by a planner (`placed`) has a key of its own, so it draws other chains than the
    episode will: a planner cannot look into the future.
    """

    def __init__(self, world: Any, count: int, *, max_steps: int | None = None) -> None:
        self.world = world
        self.limit = world.max_iterations if max_steps is None else min(world.max_iterations, max_steps)
        self.count = count
        self.place = np.zeros((count, transition.width(world.branches)), np.int64)
        self.done = np.ones(count, np.bool_)
        self.key = np.zeros(count, np.uint64)
        self.episode = np.zeros(count, np.int64)
        self._everyone = np.ones(count, np.bool_)
        self._unforced = np.full(count, -1, np.int64)

    @property
    def root(self) -> np.ndarray:
        return self.place[:, transition.ROOT]

    def seed(self, keys: np.ndarray) -> None:
        """Gives every lane its key ``[B] uint64``: the whole of its randomness."""
        self.key[:] = keys
        self.episode[:] = 0

    def begin(self, which: np.ndarray | None = None, roots: np.ndarray | None = None) -> None:
        """Starts episodes in the lanes of `which` ``[B] bool``, at prompts `roots` ``[B]`` where those are not -1."""
        if roots is not None:
            last = self.world.chains.num_prompts - 1
            bad = (roots < -1) | (roots > last)
            if bad.any():
                raise ConfigError(f"root {int(roots[bad][0])} is out of range; roots are 0 to {last}")
        transition.begin(
            self._everyone if which is None else which, self._unforced if roots is None else roots,
            self.world.cells.starts, self.place, self.done, self.key, self.episode,
        )  # fmt: skip

    def step(self, actions: np.ndarray, *, next_step_reset: bool) -> tuple[Outcome, dict[str, np.ndarray]]:
        """Moves every lane one step and returns the outcome and fresh observations."""
        return self.advance(actions, next_step_reset=next_step_reset), self.observe()

    def advance(self, actions: np.ndarray, *, next_step_reset: bool) -> Outcome:
        """Moves every lane one step; lanes that are done begin anew (``next_step_reset``) or stand still."""
        flags = [np.zeros(self.count, np.bool_) for _ in range(4)]
        outcome = Outcome(np.zeros(self.count), np.zeros((self.count, 2), np.float32), *flags)
        transition.advance(
            actions,
            self.world.cells,
            self.limit,
            next_step_reset,
            self.place,
            self.done,
            self.key,
            self.episode,
            outcome,
        )
        return outcome

    def observe(self, lanes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns fresh observations of some lanes ``[b] int``; None: all."""
        return self.world.observe(self.place if lanes is None else self.place[lanes])

    def places(self, lanes: np.ndarray) -> np.ndarray:
        """Returns where some lanes stand ``[b, width] int64``."""
        return self.place[lanes]

    def placed(self, places: np.ndarray) -> Self:
        """Returns fresh lanes that stand at these places; what they draw from here on is their own."""
        lanes = type(self)(self.world, len(places))
        lanes.place[:], lanes.done[:] = places, False
        lanes.key[:] = np.arange(1, len(places) + 1)
        return lanes

    def state(self) -> dict[str, np.ndarray]:
        """Returns a copy of all state, to go back to with `restore`."""
        parts = {name: getattr(self, name).copy() for name in ("place", "done", "key", "episode")}
        return {**parts, ORIGIN: np.full(self.count, self.world.origin, np.int64)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes back to a state; raises for one of another number of lanes or another world."""
        own = self.state()
        check_state(state, own)
        if (
            not self.world.sound(state["place"]).all()
            or state["place"][:, transition.STEPS].max(initial=0) > self.limit
        ):
            raise ConfigError("this state is at a place that is not there; it comes from another pool")
        for name in own.keys() - {ORIGIN}:
            getattr(self, name)[:] = state[name]
