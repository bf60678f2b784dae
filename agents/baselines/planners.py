"""Baselines that plan with the suite's search and nothing learned.

What they maximise on token trees: the log-probability that primary and teachers give, averaged, summed over the path
(``sees="likelihood"``, the default), or the reward itself (``sees="verifier"``). Elsewhere the environment's reward.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from treegym.agents.baselines.answers import FLOOR
from treegym.agents.baselines.base import Planning
from treegym.agents.planning.planners import ClosedPlanner, SimulatorPlanner, make_planner
from treegym.agents.planning.simulators import TreeSimulator
from treegym.agents.play.native_worlds import LanesWorld
from treegym.agents.play.standing import Place
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError
from treegym.search import Transition

__all__ = ["MCTS", "Beam", "BestOfN", "Lookahead"]

SEES = ("likelihood", "verifier")
SCALE = 0.1  # log-probabilities down to -20 against rewards around 1


class _Planned(Planning):
    """Searches from every state it is asked about.

    Args:
        env: the environment.
        num_simulations: what the search may spend on each choice.
        sees: what it maximises on token trees.
        options: passed to the search method.
    """

    method: ClassVar[str] = ""

    def __init__(
        self,
        env: Any,
        *,
        num_simulations: int = 64,
        sees: str = "likelihood",
        options: dict[str, Any] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if sees not in SEES:
            raise ConfigError(f"sees must be one of {', '.join(SEES)}, got {sees!r}")
        self.num_simulations, self.sees, self.options = num_simulations, sees, dict(options or {})
        self.simulations = 0
        super().__init__(env, seed=seed, **kwargs)

    def _enter_world(self) -> None:
        self._planners: dict[int, Any] = {}
        if make_planner(self.world) is None:
            raise ConfigError(
                f"{type(self).__name__} plans, so the environment must offer clone_state and restore_state (or be a "
                f"token tree); {type(self.world.env).__name__} does not"
            )

    def plan(self, place: Place, rows: dict[str, np.ndarray]) -> np.ndarray:
        planner = self._planners.get(id(place.world))
        if planner is None:
            planner = self._planners[id(place.world)] = self._make(place.world)
        states = place.states(planner)
        seed = int(self.rng.integers(2**31))
        result = planner.search(
            states, method=self.method, num_simulations=self.num_simulations, seed=seed, **self.options
        )
        self.simulations += self.num_simulations * len(rows[next(iter(rows))])
        return result.action.astype(np.int64)

    def _make(self, world: Any) -> Any:
        inner = world.tree_world if isinstance(world, LanesWorld) else None
        planner: Any
        if inner is None:
            planner = make_planner(world)
        else:
            planner = SimulatorPlanner(
                lambda policy: (
                    _LikelihoodSimulator(inner, None, sees="verifier")
                    if self.sees == "likelihood"
                    else TreeSimulator(inner, None, sees="verifier")
                ),
                lambda who: world.lanes.node[who],
            )
        planner.prepare(None)
        return planner


class _LikelihoodSimulator(TreeSimulator):
    """A token tree that pays what primary and teachers think of a step."""

    def __init__(self, world: TreeWorld, policy: Any, *, sees: str) -> None:
        super().__init__(world, policy, sees=sees)
        self.pays = step_likelihood(world)  # [N] float32

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        moved = super().step(states, actions)
        return Transition(moved.states, self.pays[moved.states], moved.terminated)


def step_likelihood(world: TreeWorld) -> np.ndarray:
    """Returns the mean log-probability of each node under primary and teachers, scaled ``[N] float32``."""
    tree = world.tree
    opinions = np.concatenate([np.asarray(tree.prior)[:, None], np.asarray(tree.teacher_logp, np.float32)], axis=1)
    return SCALE * np.nan_to_num(opinions, nan=FLOOR).clip(FLOOR, 0.0).mean(1, dtype=np.float32)


class MCTS(_Planned):
    """Plain UCT with the primary's prior at ties and no value network."""

    method = "uct"

    def _make(self, world: Any) -> Any:
        inner = world.tree_world if isinstance(world, LanesWorld) else None
        if inner is None or inner.grower is not None or not inner.table.complete:
            return super()._make(world)
        planner = ClosedPlanner(inner, world.lanes, sees="verifier")
        planner.prepare(None)
        if self.sees == "likelihood":
            planner.paid = step_likelihood(inner)
        return planner


class Beam(_Planned):
    """Beam search."""

    method = "beam"


class BestOfN(_Planned):
    """Samples answers from the primary and begins the best of them."""

    method = "best_of_n"


class Lookahead(_Planned):
    """Looks a few steps ahead, exhaustively."""

    method = "lookahead"
