"""Methods that keep a frontier of judged states: beam, best-first and depth-first search.

Each round every root takes up to `width` states from its frontier, judges their likeliest children and puts those that
have not ended into the frontier. The three differ only in which states come first and whether the others are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import numpy as np

from treegym.errors import ConfigError
from treegym.search.checks import positive
from treegym.search.plan import Limits, Plan
from treegym.search.simulator import SearchResult, Simulator

__all__ = ["beam", "best_first", "depth_first", "frontier_search"]

ORDERS = ("beam", "best", "depth")


@dataclass(order=True)
class _Open:
    """A judged state whose children are not judged yet; compares by what comes first."""

    rank: tuple[float, ...]
    number: int  # where its state is kept; the older first among equals
    first: int  # the move at the root that leads here
    gained: float  # discounted rewards up to here
    score: float  # what the path through here looks like: rewards so far + discounted value
    weight: float  # discount ** depth
    depth: int
    log_prior: np.ndarray  # [A] float64

    def __hash__(self) -> int:
        return self.number


def frontier_search(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    order: str = "beam",
    width: int = 4,
    branching: int | None = None,
    likelihood_weight: float = 0.0,
    **limits: Unpack[Limits],
) -> SearchResult:
    """Searches by frontier; plays the move that leads to the best return found.

    A state ranks by rewards so far + discount ** depth * value (+ likelihood_weight * log-probability of the path);
    among equals the likelier path comes first.

    Args:
        order: "beam" (the best `width` of a level; once they have all ended, the best of those left behind, until the
            budget is spent), "best" (best first) or "depth" (deepest first).
        width: states per round.
        branching: children judged of each, the likeliest first; all unless given.
        **limits: see `treegym.search.plan.Limits`.
    """
    if order not in ORDERS:
        raise ConfigError(f"order is {order!r}; it must be one of {', '.join(ORDERS)}")
    width = positive("width", width)
    plan = Plan(simulator, states, num_simulations, **limits)
    size, tally = plan.size, plan.tally
    branching = plan.actions if branching is None else positive("branching", branching)
    fronts = [[_Open((0.0,), b, -1, 0.0, 0.0, 1.0, 0, plan.prior[b])] for b in range(size)]
    waiting: list[list[_Open]] = [[] for _ in range(size)]  # what the beam left behind
    likelihood: dict[int, float] = dict.fromkeys(range(size), 0.0)
    rounds: list[tuple[int, _Open, int]] = []
    while not plan.world.spent:
        rounds.clear()
        for b, front in enumerate(fronts):
            room = plan.room(b)
            if room == 0:
                continue
            if not front:
                front, waiting[b] = waiting[b], []
            front.sort()
            taken, rest = front[:width], front[width:]
            if order == "beam":
                waiting[b] += rest
                rest = []
            fronts[b] = rest
            pairs = [(b, node, int(a)) for node in taken for a in _likeliest(node.log_prior, branching)]
            if len(pairs) > room:  # the budget ends here: the likeliest paths first
                pairs.sort(key=lambda pair: -(likelihood[pair[1].number] + pair[1].log_prior[pair[2]]))
                waiting[b] += {pair[1].number: pair[1] for pair in pairs[room:]}.values()  # their estimates still count
                pairs = pairs[:room]
            tally.evaluations[b] += len(pairs)  # charged as planned, ended or not
            rounds += pairs
        if not rounds:
            break
        chosen = np.array([a for _, _, a in rounds], np.int32)
        grown = plan.grow(np.array([node.number for _, node, _ in rounds]), chosen)
        for i, (b, node, action) in enumerate(rounds):
            gained = node.gained + node.weight * float(grown.reward[i])
            weight = node.weight * plan.discount
            first = action if node.first < 0 else node.first
            score = gained + weight * float(grown.worth[i])
            if grown.ended[i]:
                tally.add(b, first, score)
            else:
                tally.visits[b, first] += 1
                path = likelihood[node.number] + float(node.log_prior[action])
                number = int(grown.numbers[i])
                likelihood[number] = path
                worthy = score + likelihood_weight * path
                rank = (-node.depth - 1.0, -worthy, -path) if order == "depth" else (-worthy, -path)
                fronts[b].append(_Open(rank, number, first, gained, score, weight, node.depth + 1, grown.log_prior[i]))
    for b in range(size):  # the estimate of a state whose children were judged counts no longer
        for node in (*fronts[b], *waiting[b]):
            if node.first >= 0:
                tally.best[b, node.first] = max(tally.best[b, node.first], node.score)
    return plan.result()


beam, best_first, depth_first = (partial(frontier_search, order=order) for order in ORDERS)


def _likeliest(log_prior: np.ndarray, branching: int) -> np.ndarray:
    """Returns the likeliest legal actions, at most `branching`."""
    order = np.argsort(-log_prior, kind="stable")[:branching]
    return order[np.isfinite(log_prior[order])]
