"""Baselines that plan with the suite's search and nothing learned.

What they maximise on token trees: the log-probability that primary and teachers give, averaged, summed over the path
(``sees="likelihood"``, the default), or the reward itself (``sees="verifier"``). Elsewhere the environment's reward.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from treegym.agents.baselines.base import Planning
from treegym.agents.costs import Costs
from treegym.agents.planning.kept import KeptPlanners
from treegym.agents.planning.planners import make_planner
from treegym.agents.play.standing import Place
from treegym.checks import one_of
from treegym.errors import ConfigError
from treegym.rewards.sees import Sees

__all__ = ["MCTS", "Beam", "BestOfN", "Lookahead"]


class _Planned(Planning):
    """Searches from every state it is asked about.

    Args:
        env: the environment.
        num_simulations: what the search may spend on each choice.
        sees: what it maximises on token trees.
        options: passed to the search method.
    """

    method: ClassVar[str] = ""
    tabulate: ClassVar[bool] = False  # whether whole searches run in one kernel on closed trees

    def __init__(
        self,
        env: Any,
        *,
        num_simulations: int = 64,
        sees: str = Sees.LIKELIHOOD,
        options: dict[str, Any] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        one_of("sees", sees, (Sees.LIKELIHOOD, Sees.VERIFIER))
        self.num_simulations, self.sees, self.options = num_simulations, sees, dict(options or {})
        super().__init__(env, seed=seed, **kwargs)

    def _enter_world(self) -> None:
        self._planners = KeptPlanners(self.costs, tabulate=self.tabulate)
        if make_planner(self.world) is None:
            raise ConfigError(
                f"{type(self).__name__} plans, so the environment must offer clone_state and restore_state (or be a "
                f"token tree); {type(self.world.env).__name__} does not"
            )

    def carry(self, costs: Costs) -> None:
        super().carry(costs)
        self._planners.carry(costs)

    def plan(self, place: Place, rows: dict[str, np.ndarray]) -> np.ndarray:
        planner = self._planners.planner(place.world, self.sees)
        assert planner is not None, "checked when the world was entered"
        states = planner.states(place.lanes)
        self._planners.prepare(planner, states, None, update=0)
        seed = int(self.rng.integers(2**31))
        result = planner.search(
            states, method=self.method, num_simulations=self.num_simulations, seed=seed, **self.options
        )
        return result.action.astype(np.int64)


class MCTS(_Planned):
    """Plain UCT with the primary's prior at ties and no value network."""

    method = "uct"
    tabulate = True


class Beam(_Planned):
    """Beam search."""

    method = "beam"


class BestOfN(_Planned):
    """Samples answers from the primary and begins the best of them."""

    method = "best_of_n"


class Lookahead(_Planned):
    """Looks a few steps ahead, exhaustively."""

    method = "lookahead"
