"""DVTS: diverse verifier tree search (https://huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute).

A beam keeps the best states wherever they are, and they soon descend from one. Here the first moves are dealt out
among independent subtrees, and each keeps the best of its own children: with a good judge a beam finds more, with a
poor one or many paths the subtrees do, because they do not all follow one mistake.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.search.checks import positive
from treegym.search.levels import Level, Stand, level_search
from treegym.search.simulator import SearchResult, Simulator

__all__ = ["dvts"]


def dvts(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    seed: int = 0,
    root_ids: np.ndarray | None = None,
    discount: float = 1.0,
    subtrees: int = 4,
    branching: int = 4,
    model_calls: int | None = None,
    seconds: float | None = None,
    answers: int = 0,
) -> SearchResult:
    """Searches with DVTS; plays the move that leads to the best path found.

    Args:
        subtrees: how many are searched side by side; fewer where the root has fewer moves.
        branching: children of a state, of which the best goes on.
        model_calls: calls of the simulator's `expand` at most, the roots' not counted.
        seconds: wall-clock time; a round under way is finished.
        answers: how many of the best paths to return with the result.
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

    return level_search(
        simulator, states, Level(allot, group, keep), num_simulations=num_simulations, seed=seed, root_ids=root_ids,
        discount=discount, model_calls=model_calls, seconds=seconds, answers=answers,
    )  # fmt: skip
