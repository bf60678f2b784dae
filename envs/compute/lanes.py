"""Lanes of TestTimeCompute: the state of a batch of episodes. The single environment is one lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from treegym.envs.compute import transition
from treegym.envs.states import ORIGIN, check_state
from treegym.envs.world_lanes import LaneStep, WorldLanes
from treegym.errors import ConfigError

__all__ = ["Lanes"]


class Lanes(WorldLanes):
    """B episodes. What a lane draws hangs on its key, the number of its episode and the step, nothing else.

    A lane that is put at a place by a planner (`placed`) has a key of its own, so it draws other chains than the
    episode will: a planner cannot look into the future.
    """

    def __init__(self, world: Any, count: int, *, max_steps: int | None = None) -> None:
        width = transition.width(world.branches)
        super().__init__(world, count, width=width, roots=world.chains.num_prompts, max_steps=max_steps)

    def _begin(self, which: np.ndarray, roots: np.ndarray) -> None:
        transition.begin(which, roots, self.world.cells, self.place, self.done, self.key, self.episode)

    def advance(self, actions: np.ndarray, *, next_step_reset: bool) -> LaneStep:
        """Moves every lane one step; lanes that are done begin anew (``next_step_reset``) or stand still."""
        outcome = self._blank_step()
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

    def placed(self, places: np.ndarray) -> Self:
        """Returns fresh lanes that stand at these places; what they draw from here on is their own."""
        lanes = super().placed(places)
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
