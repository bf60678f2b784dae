"""DVTS: diverse verifier tree search (https://huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute).

A beam keeps the best states wherever they are, and they soon descend from one. Here the first moves are dealt out
among independent subtrees, and each keeps the best of its own children: with a good judge a beam finds more, with a
poor one or many paths the subtrees do, because they do not all follow one mistake.
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from treegym.search.checks import positive
from treegym.search.levels import Level, Stand, level_search
from treegym.search.plan import Limits, Plan
from treegym.search.simulator import SearchResult, Simulator

__all__ = ["dvts"]


def dvts(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    subtrees: int = 4,
    branching: int = 4,
    **limits: Unpack[Limits],
) -> SearchResult:
    """Searches with DVTS; plays the move that leads to the best path found.

    Args:
        subtrees: how many are searched side by side; fewer where the root has fewer moves.
        branching: children of a state, of which the best goes on.
        **limits: see `treegym.search.plan.Limits`.
    """
    subtrees, branching = positive("subtrees", subtrees), positive("branching", branching)

    def allot(front: list[Stand], finished: int) -> np.ndarray:
        return np.array([branching * (subtrees if stand.first < 0 else 1) for stand in front])

    def group(parent: Stand, child: int) -> int:
        return child % subtrees if parent.first < 0 else parent.group

    def keep(children: list[Stand], finished: set[int]) -> list[Stand]:
        best: dict[int, Stand] = {}
        for child in children:
            if child.group not in best or child.score > best[child.group].score:
                best[child.group] = child
        return [child for group, child in best.items() if group not in finished]

    return level_search(Plan(simulator, states, num_simulations, **limits), Level(allot, group, keep))
