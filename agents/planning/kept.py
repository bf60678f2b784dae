"""The planners that an agent keeps: one per world and what it is told, with the networks of the agent's last update."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.agents.costs import Costs
from treegym.agents.planning.planners import ClosedPlanner, WorldPlanner, make_planner

__all__ = ["KeptPlanners"]


class KeptPlanners:
    """Makes each planner once, and gives it networks when they have changed.

    Args:
        costs: what the planners count in.
        **making: settings of `make_planner`.
    """

    def __init__(self, costs: Costs, **making: Any) -> None:
        self._costs, self._making = costs, making
        self._made: dict[tuple[int, str], tuple[Any, WorldPlanner | None]] = {}  # with the world, which keeps its id
        self._update = -1  # whose networks they hold
        self._ready: dict[int, set[int]] = {}  # by planner: roots that it has tables for

    def planner(self, world: Any, sees: str) -> WorldPlanner | None:
        """Returns the planner for a world that is told so much; None where nobody can plan."""
        key = (id(world), sees)
        if key not in self._made:
            planner = make_planner(world, sees=sees, **self._making)
            if planner is not None:
                planner.costs = self._costs
            self._made[key] = world, planner
        return self._made[key][1]

    def prepare(self, planner: WorldPlanner, states: Any, policy: Any, *, update: int) -> None:
        """Gives a planner the networks of an update; if it looks them up in tables, those of the roots of `states`."""
        if self._update != update:
            self._update = update
            self._ready.clear()
        ready = self._ready.get(id(planner))
        if policy is not None and isinstance(planner, ClosedPlanner):  # without a policy a table is a copy, made once
            missing = set(np.unique(planner.world.tables.root_index[states]).tolist()) - (ready or set())
            if missing:
                planner.prepare(policy, np.array(sorted(missing)))
            self._ready[id(planner)] = (ready or set()) | missing
        elif ready is None:
            planner.prepare(policy)
            self._ready[id(planner)] = set()

    def carry(self, costs: Costs) -> None:
        """Counts in another counter from here on."""
        self._costs = costs
        for _, planner in self._made.values():
            if planner is not None:
                planner.costs = costs

    def forget(self) -> None:
        """Drops all planners, as the worlds have changed."""
        self._made.clear()
        self._ready.clear()
