"""Non-learned ways to search a root's candidates: each gives the order in which it would measure them.

What they may know before measuring is what the observations hold: the expected fitness from the history of strategies.
Letters: C candidates of a root, S strategies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from treegym.envs.selection.features import expected_scores
from treegym.envs.selection.selection_world import SelectionWorld
from treegym.errors import ConfigError, suggest
from treegym.optimize.candidates import Candidate
from treegym.optimize.fitness import fitness
from treegym.optimize.selector import CandidateSelector

__all__ = ["SEARCHERS", "best_so_far", "search_order"]

NOISE = 0.01  # of measured fitness, and
PRIOR = 0.05  # spread of a strategy's contribution to it, as the bandit believes at first


def search_order(world: SelectionWorld, root: int, *, method: str, seed: int, budget: int | None = None) -> list[int]:
    """Returns the records in the order in which a searcher measures them, at most `budget` of them."""
    if method not in SEARCHERS:
        raise ConfigError(f"there is no searcher {method!r}.{suggest(method, SEARCHERS)}")
    records = world.candidates[root]
    records = records[records >= 0]
    count = len(records) if budget is None else min(budget, len(records))
    return SEARCHERS[method](world, records, seed, count)


def best_so_far(world: SelectionWorld, order: list[int], length: int) -> np.ndarray:
    """Returns the best fitness after 0, 1, ... `length` measurements ``[length + 1]``, the original included."""
    values = np.full(length + 1, world.base_fitness)
    for i in range(1, length + 1):
        values[i] = max(values[i - 1], world.fitness[order[i - 1]]) if i <= len(order) else values[i - 1]
    return values


def _random(world: SelectionWorld, records: np.ndarray, seed: int, count: int) -> list[int]:
    return [int(record) for record in np.random.default_rng(seed).permutation(records)[:count]]


def _expected(world: SelectionWorld, records: np.ndarray, seed: int, count: int) -> list[int]:
    """What the history of strategies promises most, first: no chance, no learning."""
    values = fitness(expected_scores(world.table)[0][records], world.weights)
    return [int(record) for record in records[np.argsort(-values, kind="stable")][:count]]


def _selected(method: str) -> Callable[[SelectionWorld, np.ndarray, int, int], list[int]]:
    """Returns a searcher that draws by the core's own selection, on expected fitness."""

    def order(world: SelectionWorld, records: np.ndarray, seed: int, count: int) -> list[int]:
        selector = CandidateSelector(method=method, seed=seed)
        expected = fitness(expected_scores(world.table)[0][records], world.weights)
        waiting = list(range(len(records)))
        found = []
        for _ in range(count):
            names = [Candidate((str(i),)) for i in waiting]  # the selector only passes them through
            chosen = selector.select_candidate(names, [float(expected[i]) for i in waiting])
            position = int(chosen.strategies[0])
            waiting.remove(position)
            found.append(int(records[position]))
        return found

    return order


def _bandit(world: SelectionWorld, records: np.ndarray, seed: int, count: int) -> list[int]:
    """Thompson sampling in a linear model: fitness gain is a sum over strategies, learned anew on every module.

    Prior N(0, PRIOR^2) for each strategy, noise NOISE; after measurements X, y the posterior is Gaussian with precision
    ``I / PRIOR^2 + X^T X / NOISE^2`` (Agrawal and Goyal, https://arxiv.org/abs/1209.3352).
    """
    rng = np.random.default_rng(seed)
    features = world.table.contains[records].astype(float)  # [C, S]
    precision = np.eye(features.shape[1]) / PRIOR**2
    target = np.zeros(features.shape[1])
    waiting = np.ones(len(records), bool)
    found = []
    for _ in range(count):
        covariance = np.linalg.inv(precision)
        sample = rng.multivariate_normal(covariance @ target, covariance, method="cholesky")
        position = int(np.argmax(np.where(waiting, features @ sample, -np.inf)))
        waiting[position] = False
        found.append(int(records[position]))
        gain = world.fitness[records[position]] - world.base_fitness
        precision += np.outer(features[position], features[position]) / NOISE**2
        target += features[position] * gain / NOISE**2
    return found


SEARCHERS: dict[str, Callable[[SelectionWorld, np.ndarray, int, int], list[int]]] = {
    "random": _random,
    "history": _expected,
    "tournament": _selected("tournament"),
    "roulette": _selected("roulette"),
    "rank": _selected("rank"),
    "bandit": _bandit,
}
