"""Learners by policy gradient that search when they act: what a search at test time adds to a policy, by itself.

They learn as PPO and VAPO do. When acting they plan as AlphaZero does, with their own policy and critic, and are told
as little: an end is worth what the critic says of the state before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from treegym.agents.costs import Costs
from treegym.agents.planning.kept import KeptPlanners
from treegym.agents.policy_gradient import PolicyGradient
from treegym.agents.ppo import PPO, PPOSettings
from treegym.agents.vapo import VAPO, VAPOSettings
from treegym.checks import number, one_of, whole
from treegym.rewards.sees import Sees
from treegym.search.settings import TREE_RULES

__all__ = ["SearchingPPO", "SearchingVAPO"]


@dataclass(frozen=True)
class SearchingPPOSettings(PPOSettings):
    """PPO's switches and those of the search when acting."""

    method: str = "gumbel"
    predict_simulations: int = 128
    likelihood_weight: float = 0.1  # token trees: what a step is paid, times its log-probability under the policy

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)


@dataclass(frozen=True)
class SearchingVAPOSettings(VAPOSettings):
    """VAPO's switches and those of the search when acting."""

    method: str = "gumbel"
    predict_simulations: int = 128
    likelihood_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)


def _check(settings: Any) -> None:
    one_of("method", settings.method, TREE_RULES)
    whole("predict_simulations", settings.predict_simulations, low=1)
    number("likelihood_weight", settings.likelihood_weight, low=0.0)


class _Searching(PolicyGradient):
    """Plans when acting."""

    plans: ClassVar[bool] = True
    settings: Any

    def _setup_learning(self) -> None:
        super()._setup_learning()
        self._planners = KeptPlanners(self.costs, likelihood_weight=self.settings.likelihood_weight)

    def carry(self, costs: Costs) -> None:
        super().carry(costs)
        self._planners.carry(costs)

    def decide(
        self, rows: dict[str, np.ndarray], state: Any, *, begun: bool, deterministic: bool
    ) -> tuple[np.ndarray, Any]:
        """Searches where the observations can be placed in an environment it knows; else asks the raw policy."""
        s = self.settings
        place = self.place(rows, state)
        planner = None if place is None else self._planners.planner(place.world, Sees.VALUE)
        if place is None or planner is None or not deterministic:
            return self.choose(rows, deterministic=deterministic), state
        states = planner.states(place.lanes)
        self._planners.prepare(planner, states, _Judging(self.scorer), update=self._n_updates)
        options = {"discount": s.gamma} | ({"gumbel_scale": 0.0} if s.method == "gumbel" else {})
        result = planner.search(states, method=s.method, num_simulations=s.predict_simulations, seed=0, **options)
        return result.action.astype(np.int64), state


class _Judging:
    """A policy whose ends are worth what its critic says of the state before: nothing else learned their worth."""

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    def judge(self, rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, values = self._scorer.infer(rows)
        return logits, values, np.broadcast_to(values[:, None], logits.shape)


class SearchingPPO(_Searching, PPO):
    """PPO that searches when it acts."""

    settings_class = SearchingPPOSettings


class SearchingVAPO(_Searching, VAPO):
    """VAPO that searches when it acts."""

    settings_class = SearchingVAPOSettings
