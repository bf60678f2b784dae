"""Driving a search: the one call most users need."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.search.base import Evaluation, SearchResult, Simulator
from treegym.search.compiled import compiled_search
from treegym.search.planner import Planner, check_evaluation
from treegym.search.settings import make_options
from treegym.search.states import StateStore, count, take

__all__ = ["tree_search"]


def tree_search(
    simulator: Simulator,
    states: Any,
    *,
    method: str,
    num_simulations: int,
    seed: int = 0,
    root_ids: np.ndarray | None = None,
    num_threads: int = 1,
    **options: Any,
) -> SearchResult:
    """Searches from each of B states with `num_simulations` simulations; options as in `Options`."""
    settings = make_options(options)
    if hasattr(simulator, "model") and settings.leaves == 1 and not settings.transpositions:
        return compiled_search(
            simulator,
            states,
            method=method,
            num_simulations=num_simulations,
            seed=seed,
            options=settings,
            root_ids=root_ids,
            num_threads=num_threads,
        )
    planner = Planner(
        simulator.expand(states),
        method=method,
        num_simulations=num_simulations,
        seed=seed,
        options=settings,
        root_ids=root_ids,
    )
    store = StateStore(states, planner.size * planner.capacity)
    store.put(np.arange(count(states), dtype=np.int64) * planner.capacity, states)
    while step(planner, simulator, store):
        pass
    return planner.result()


def step(planner: Planner, simulator: Simulator, store: StateStore) -> int:
    """Evaluates one round of leaves; returns how many there were."""
    leaves = planner.ask()
    if not len(leaves.roots):
        return 0
    moved = simulator.step(store.get(leaves.parents), leaves.actions)
    terminated = np.ascontiguousarray(moved.terminated, np.bool_)
    store.put(leaves.nodes, moved.states)
    alive = np.flatnonzero(~terminated)
    evaluation: Evaluation | None = None
    if len(alive):
        evaluation = simulator.expand(moved.states if len(alive) == len(terminated) else take(moved.states, alive))
        evaluation = check_evaluation(evaluation, len(alive), planner.num_actions, "below the roots")
    planner.tell(moved.reward, terminated, evaluation)
    return len(leaves.roots)
