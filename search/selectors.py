"""Choosing among candidates by fitness: tournament, roulette wheel and rank, each with its exact probabilities.

Every selector is defined by its `*_probabilities`; drawing is the same for all. Fitness may be negative, equal or NaN:
a NaN candidate was not measured and is never chosen while a measured one exists; ties share their probability.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np

from treegym.errors import ConfigError, suggest

__all__ = ["SELECTORS", "choose", "rank_probabilities", "roulette_probabilities", "tournament_probabilities"]


def tournament_probabilities(fitness: np.ndarray, *, size: int = 3) -> np.ndarray:
    """P(i wins) when `size` distinct candidates meet and the fittest wins, float64 [n].

    With l candidates below a group of t equals, some of the group are among the m drawn and none above them:
    P(group) = (C(l + t, m) - C(l, m)) / C(n, m), shared equally by the group. `size` is at most n.
    """
    values, known = _measured(fitness)
    if size < 1:
        raise ConfigError(f"the tournament's size is {size}; it must be at least 1")
    count = int(known.sum())
    drawn = min(size, count)
    out = np.zeros(len(values))
    measured = values[known]
    shares = np.empty(count)
    for i, value in enumerate(measured):
        below, ties = int((measured < value).sum()), int((measured == value).sum())
        shares[i] = (comb(below + ties, drawn) - comb(below, drawn)) / comb(count, drawn) / ties
    out[known] = shares
    return out


def roulette_probabilities(fitness: np.ndarray) -> np.ndarray:
    """P(i) proportional to fitness above the least when any is negative, to fitness itself otherwise, float64 [n].

    All equal (or all zero): uniform. Infinite fitness: the +inf candidates share everything.
    """
    values, known = _measured(fitness)
    measured = values[known]
    if np.isposinf(measured).any():
        weight = np.isposinf(measured).astype(np.float64)
    else:
        finite = measured[np.isfinite(measured)]
        low = min(0.0, float(finite.min())) if len(finite) else 0.0
        weight = np.where(np.isfinite(measured), measured - low, 0.0)
        high = float(weight.max(initial=0.0))
        weight = weight / high if high > 0 else np.ones(len(measured))
    out = np.zeros(len(values))
    out[known] = weight / weight.sum()
    return out


def rank_probabilities(fitness: np.ndarray, *, pressure: float = 1.5) -> np.ndarray:
    """Linear ranking: P = (2 - s + 2 (s - 1) r / (n - 1)) / n, r = 0 for the worst; ties share their mean rank.

    `pressure` s in [1, 2]: how many times the mean the best is chosen (Baker 1985). float64 [n].
    """
    if not 1.0 <= pressure <= 2.0:
        raise ConfigError(f"pressure is {pressure!r}; it must lie between 1 and 2")
    values, known = _measured(fitness)
    measured = values[known]
    count = len(measured)
    below = (measured[None, :] < measured[:, None]).sum(1)
    ties = (measured[None, :] == measured[:, None]).sum(1)
    rank = below + (ties - 1) / 2.0
    out = np.zeros(len(values))
    spread = rank / (count - 1) if count > 1 else np.full(count, 0.5)
    out[known] = (2.0 - pressure + 2.0 * (pressure - 1.0) * spread) / count
    return out


SELECTORS: dict[str, Callable[..., np.ndarray]] = {
    "tournament": tournament_probabilities,
    "roulette": roulette_probabilities,
    "rank": rank_probabilities,
}


def choose(
    fitness: np.ndarray, *, count: int, seed: int | np.random.Generator, selector: str = "tournament", **settings: float
) -> np.ndarray:
    """Returns `count` chosen candidates, int64, drawn with the selector's probabilities."""
    if selector not in SELECTORS:
        raise ConfigError(f"no candidate selector is called {selector!r}.{suggest(selector, SELECTORS)}")
    probabilities = SELECTORS[selector](np.asarray(fitness), **settings)
    rng = np.random.default_rng(seed)
    edges = np.cumsum(probabilities)
    drawn = np.searchsorted(edges, rng.random(count) * edges[-1], side="right")
    return np.minimum(drawn, int(np.flatnonzero(probabilities)[-1]))


def _measured(fitness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns fitness as float64 [n] and which candidates count: the measured ones, or all where none is."""
    values = np.asarray(fitness, np.float64)
    if values.ndim != 1 or not len(values):
        raise ConfigError(f"fitness has shape {values.shape}; expected [candidates], at least one")
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(len(values)), np.ones(len(values), np.bool_)
    return values, known
