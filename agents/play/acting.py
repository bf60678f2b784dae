"""How every agent is asked, whether it learns or not: `predict`, and where what it is shown may have been observed."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from treegym.agents.costs import Costs
from treegym.agents.masking import MASK
from treegym.agents.play.standing import Place, place_of, stand
from treegym.agents.play.world import World
from treegym.agents.policies.base import as_rows
from treegym.errors import ConfigError

__all__ = ["Acting"]


class Acting:
    """Answers `predict` the way Stable-Baselines3's algorithms do."""

    plans: ClassVar[bool] = False  # whether it must know where observations were made
    observation_space: Any
    action_space: Any
    costs: Costs  # of all judging and planning so far

    def carry(self, costs: Costs) -> None:
        """Counts in another counter from here on."""
        self.costs = costs

    # ------------------------------------------------------------------ where it stands

    def stands_in(self, *envs: Any) -> None:
        """Replaces the environments known so far by these."""
        self._envs = envs
        self._known: list[World] | None = None

    def watch(self, env: Any) -> None:
        """Tells the agent of another environment it will be asked to act in: planners look up its state."""
        self._known = [*place_of([env]), *self.known_worlds()]

    def watch_world(self, world: World) -> None:
        """The same for a world as it is, without an environment around it."""
        if all(known is not world for known in self.known_worlds()):
            self._known = [world, *self.known_worlds()]

    def known_worlds(self) -> list[World]:
        """Returns the worlds an observation may come from: those of the environment it was given, and its own batch."""
        if self._known is None:
            self._known = place_of(self._envs)
        return self._known

    def place(self, rows: dict[str, np.ndarray], state: Any) -> Place | None:
        """Returns where rows were observed: as `state` says, or else where a known world shows them now."""
        if isinstance(state, Place) and len(state.lanes) == len(next(iter(rows.values()))):
            return state
        return stand(self.known_worlds(), rows)

    # ------------------------------------------------------------------ acting

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Returns an action for each observation, and a state to hand in with the next ones.

        Args:
            observation: one, or a batch.
            state: what the last call returned, or the `Place` where a planner's observations were made; None looks for
                that place among the environments the agent knows.
            episode_start: ``[B] bool``, where an episode has just begun; planners that keep their trees from move to
                move (`reuse_tree`) begin anew if one has.
            deterministic: whether to do what seems best, rather than to draw.
            action_masks: ``[B, K]``, overrides the mask that is read from the observation, as in sb3-contrib.
        """
        rows, batched = as_rows(observation, self.observation_space)
        if action_masks is not None:
            shape = (len(next(iter(rows.values()))), int(self.action_space.n))
            if np.size(action_masks) != shape[0] * shape[1]:
                raise ConfigError(
                    f"action_masks has {np.size(action_masks)} entries; {shape[0]} x {shape[1]} are needed"
                )
            rows[MASK] = np.asarray(action_masks).reshape(shape)
        begun = episode_start is not None and bool(np.any(episode_start))
        actions, state = self.decide(rows, state, begun=begun, deterministic=deterministic)
        actions = np.asarray(actions, np.int64)
        return (actions if batched else actions[0]), state

    def decide(
        self, rows: dict[str, np.ndarray], state: Any, *, begun: bool, deterministic: bool
    ) -> tuple[np.ndarray, Any]:
        """Returns an action for each row ``[B] int64``, and the state to come back with; `begun`: an episode has."""
        return self.choose(rows, deterministic=deterministic), state

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        """Returns an action for each row ``[B] int64``."""
        raise NotImplementedError
