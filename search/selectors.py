"""Choosing among candidates by fitness: tournament, roulette wheel and rank, each with its exact probabilities.

Every selector is defined by its `*_probabilities`; drawing is the same for all. Fitness may be negative, equal or NaN:
a NaN candidate was not measured and is never chosen while a measured one exists; ties share their probability.

Letters: B rows, each a choice of its own (any number of leading axes), n candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from treegym.errors import ConfigError, suggest

__all__ = ["SELECTORS", "choose", "drawn", "rank_probabilities", "roulette_probabilities", "tournament_probabilities"]


def tournament_probabilities(fitness: np.ndarray, *, among: np.ndarray | None = None, size: int = 3) -> np.ndarray:
    """P(i wins) when `size` distinct candidates meet and the fittest wins, float64 [B, n].

    With l candidates below a group of t equals, some of the group are among the m drawn and none above them:
    P(group) = (C(l + t, m) - C(l, m)) / C(n, m), shared equally by the group. `size` is at most n.
    """
    if size < 1:
        raise ConfigError(f"the tournament's size is {size}; it must be at least 1")
    values, known = _measured(fitness, among)
    below, ties = _standing(values, known)
    count = known.sum(-1, keepdims=True)

    def share(some: np.ndarray) -> np.ndarray:
        """C(some, m) / C(n, m), factor by factor."""
        product = np.ones(some.shape)
        for place in range(min(size, values.shape[-1])):
            factor = np.maximum(some - place, 0) / np.maximum(count - place, 1)
            product = np.where(place < np.minimum(size, count), product * factor, product)
        return product

    return np.where(known, (share(below + ties) - share(below)) / np.maximum(ties, 1), 0.0)


def roulette_probabilities(fitness: np.ndarray, *, among: np.ndarray | None = None) -> np.ndarray:
    """P(i) proportional to fitness above the least when any is negative, to fitness itself otherwise, float64 [B, n].

    All equal (or all zero): uniform. Infinite fitness: the +inf candidates share everything.
    """
    values, known = _measured(fitness, among)
    endless, finite = known & np.isposinf(values), known & np.isfinite(values)
    low = np.minimum(values.min(-1, keepdims=True, where=finite, initial=0.0), 0.0)
    weight = np.where(finite, np.where(finite, values, 0.0) - low, 0.0)
    high = weight.max(-1, keepdims=True)
    weight = np.where(high > 0, weight / np.where(high > 0, high, 1.0), known)
    weight = np.where(endless.any(-1, keepdims=True), endless, weight)
    return weight / weight.sum(-1, keepdims=True)


def rank_probabilities(
    fitness: np.ndarray, *, among: np.ndarray | None = None, pressure: float | None = 1.5
) -> np.ndarray:
    """Linear ranking: P = (2 - s + 2 (s - 1) r / (n - 1)) / n, r = 0 for the worst; ties share their mean rank.

    `pressure` s in [1, 2]: how many times the mean the best is chosen (Baker 1985). None takes s = 2 n / (n + 1), which
    makes P proportional to r + 1. float64 [B, n].
    """
    if pressure is not None and not 1.0 <= pressure <= 2.0:
        raise ConfigError(f"pressure is {pressure!r}; it must lie between 1 and 2")
    values, known = _measured(fitness, among)
    below, ties = _standing(values, known)
    count = known.sum(-1, keepdims=True)
    slope = 2.0 * count / (count + 1) if pressure is None else pressure
    spread = np.where(count > 1, (below + (ties - 1) / 2.0) / np.maximum(count - 1, 1), 0.5)
    return np.where(known, (2.0 - slope + 2.0 * (slope - 1.0) * spread) / count, 0.0)


SELECTORS: dict[str, Callable[..., np.ndarray]] = {
    "tournament": tournament_probabilities,
    "roulette": roulette_probabilities,
    "rank": rank_probabilities,
}


def choose(
    fitness: np.ndarray,
    *,
    count: int,
    seed: int | np.random.Generator,
    selector: str = "tournament",
    **settings: float | None,
) -> np.ndarray:
    """Returns `count` chosen candidates, int64, drawn with the selector's probabilities."""
    if selector not in SELECTORS:
        raise ConfigError(f"no candidate selector is called {selector!r}.{suggest(selector, SELECTORS)}")
    probabilities = SELECTORS[selector](np.asarray(fitness), **settings)
    return drawn(np.broadcast_to(probabilities, (count, len(probabilities))), np.random.default_rng(seed))


def drawn(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns one candidate per row of probabilities ``[B, n]``, int64 [B]."""
    edges = probabilities.cumsum(-1)
    found = (edges <= rng.random((*edges.shape[:-1], 1)) * edges[..., -1:]).sum(-1)
    last = edges.shape[-1] - 1 - (probabilities[..., ::-1] > 0).argmax(-1)  # rounding never goes beyond it
    return np.minimum(found, last)


def _measured(fitness: np.ndarray, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns fitness as float64 [B, n] and which candidates count: the measured ones, or all where none is."""
    values = np.asarray(fitness, np.float64)
    if values.ndim < 1 or not values.shape[-1]:
        raise ConfigError(f"fitness has shape {values.shape}; expected [candidates], at least one")
    legal = np.ones(values.shape, np.bool_) if among is None else np.asarray(among, np.bool_)
    known = legal & ~np.isnan(values)
    some = known.any(-1, keepdims=True)
    return np.where(known, values, 0.0), np.where(some, known, legal)


def _standing(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many candidates each one beats and how many it equals, itself included ``[B, n]``."""
    beaten = (values[..., None, :] < values[..., :, None]) & known[..., None, :]
    equal = (values[..., None, :] == values[..., :, None]) & known[..., None, :]
    return beaten.sum(-1), equal.sum(-1)
