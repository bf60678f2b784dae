"""REBASE: reward-balanced search (https://arxiv.org/abs/2408.00724).

A level has `width` children to give away. A state that looks like R gets its share of them by softmax(R / balance):
many where a reward model is confident, some everywhere, so that neither one bad judgement nor equal treatment decides.
Paths that ended take their child with them: the next level has that many fewer.
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from treegym.checks import number
from treegym.errors import ConfigError
from treegym.search.checks import positive
from treegym.search.levels import Level, Stand, level_search
from treegym.search.plan import Limits, Plan
from treegym.search.simulator import SearchResult, Simulator

__all__ = ["rebase", "shares"]


def shares(scores: np.ndarray, total: int, balance: float) -> np.ndarray:
    """Returns how many of `total` children each state gets, int64: softmax(scores / balance) of them, whole ones.

    The paper rounds each share; here the largest remainders are given the rest, so that no child is lost or added.
    """
    weight = np.exp((scores - scores.max()) / balance)
    exact = total * weight / weight.sum()
    whole = np.floor(exact).astype(np.int64)
    rest = np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]
    whole[rest] += 1
    return whole


def rebase(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    width: int = 16,
    balance: float = 0.1,
    **limits: Unpack[Limits],
) -> SearchResult:
    """Searches with REBASE; plays the move that leads to the best path found.

    Args:
        width: children of a level.
        balance: temperature of the shares: near 0 all children go to the best state, far above 1 all get as many.
        **limits: see `treegym.search.plan.Limits`.
    """
    width = positive("width", width)
    if number("balance", balance) <= 0:
        raise ConfigError(f"balance is {balance!r}; it must be a positive number")

    def allot(front: list[Stand], finished: int) -> np.ndarray:
        return shares(np.array([stand.score for stand in front]), max(width - finished, 1), balance)

    level = Level(allot, group=lambda parent, child: 0, keep=lambda children, finished: children)
    return level_search(Plan(simulator, states, num_simulations, **limits), level)
