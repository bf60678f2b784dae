r"""Exact estimates from stored samples: what k fresh samples would do, on average over all subsets of k of them.

All are U-statistics: unbiased for k independent samples whenever the n stored ones are independent. Drawing with
replacement from the stored ones is not: it repeats samples, so it overstates how far they agree.

Letters: n samples, A answers, k samples that are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb, factorial
from typing import NamedTuple

import numpy as np

from treegym.checks import whole
from treegym.errors import ConfigError

__all__ = [
    "Spending", "adaptive_consistency", "best_of_k", "consensus_at_k", "consensus_of_law", "early_stopping",
    "mean_at_k", "pass_at_k", "stopped",
]  # fmt: skip

Counts = tuple[int, ...]
Rule = Callable[[Counts, Counts], "Counts | None"]  # all counts, those of the window -> counts to answer by, or go on


def pass_at_k(correct: np.ndarray, k: int) -> float:
    r"""Returns the chance that one of k samples is right, :math:`1 - C(n - c, k) / C(n, k)`.

    (Chen et al., https://arxiv.org/abs/2107.03374.)
    """
    n, c = len(correct), int(np.sum(correct))
    _check_k(k, n)
    return 1.0 - comb(n - c, k) / comb(n, k)


def mean_at_k(correct: np.ndarray) -> float:
    """Returns the chance that a sample is right; of k samples the mean is the same for every k."""
    return float(np.mean(correct))


def best_of_k(scores: np.ndarray, correct: np.ndarray, k: int) -> float:
    r"""Returns the chance that the best-scored of k samples is right; equal scores decide by lot.

    Of the samples in falling order, those of ranks :math:`i_0 .. i_1` that share a score hold the best of k with chance
    :math:`[C(n - i_0 + 1, k) - C(n - i_1, k)] / C(n, k)`, and each of them equally often.
    """
    n = len(scores)
    _check_k(k, n)
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranked, right = np.asarray(scores, np.float64)[order], np.asarray(correct, np.float64)[order]
    edges = np.flatnonzero(np.diff(ranked, prepend=np.inf))
    total = 0.0
    for first, last in zip(edges, np.append(edges[1:], n), strict=True):
        total += right[first:last].mean() * (comb(n - int(first), k) - comb(n - int(last), k)) / comb(n, k)
    return float(total)


def consensus_at_k(counts: np.ndarray, right: np.ndarray, k: int, *, silent: int = 0) -> float:
    r"""Returns the chance that the plurality of k samples is right; of equals one is taken by lot, as by first sight.

    .. math:: \frac{1}{C(n,k)} \sum_j C(n_c, j) \sum_y \frac{[x^{k-j} z^y]}{1+y}
        \prod_{a \ne c} \Big(\sum_{i<j} C(n_a, i) x^i + z\, C(n_a, j) x^j\Big)

    Args:
        counts: ``[A]`` how often each answer was sampled.
        right: ``[A] bool`` which are correct.
        k: how many samples are drawn.
        silent: samples that state no answer; they are drawn and have no vote.
    """
    n = int(np.sum(counts)) + silent
    _check_k(k, n)
    ways = [[float(comb(int(c), i)) for i in range(k + 1)] for c in counts]
    quiet = [float(comb(silent, i)) for i in range(k + 1)]
    return _consensus(ways, np.asarray(right, np.bool_), k, quiet) / comb(n, k)


def consensus_of_law(law: np.ndarray, right: np.ndarray, k: int) -> float:
    """Returns the same for k samples of a known law ``[A]``: counts' binomials become p^i / i!, and k! their scale.

    What the law lacks to 1 states no answer.
    """
    whole("k", k, low=1)
    law = np.asarray(law, np.float64)
    if (law < 0).any() or law.sum() > 1 + 1e-9:
        raise ConfigError(
            f"the probabilities of answers sum to {law.sum():.6g}; at most 1, each at least 0, was expected"
        )
    ways = [[p**i / factorial(i) for i in range(k + 1)] for p in law.tolist()]
    rest = max(1.0 - float(law.sum()), 0.0)
    return _consensus(ways, np.asarray(right, np.bool_), k, [rest**i / factorial(i) for i in range(k + 1)]) * factorial(
        k
    )


def _consensus(ways: list[list[float]], right: np.ndarray, k: int, quiet: list[float]) -> float:
    total = 0.0
    for c in np.flatnonzero(right):
        for j in range(1, k + 1):
            if ways[c][j] == 0.0:
                break
            table = np.zeros((k - j + 1, len(ways)))  # [x, z]
            table[:, 0] = quiet[: k - j + 1]
            for a, way in enumerate(ways):
                if a == c:
                    continue
                following = np.zeros_like(table)
                for i in range(min(j - 1, k - j) + 1):
                    if way[i]:
                        following[i:] += way[i] * table[: len(table) - i]
                if j <= k - j and way[j]:
                    following[j:, 1:] += way[j] * table[: len(table) - j, :-1]
                table = following
            total += ways[c][j] * float((table[k - j] / np.arange(1, len(ways) + 1)).sum())
    return total


class Spending(NamedTuple):
    """What a rule of stopping comes to, on average."""

    accuracy: float
    samples: float
    tokens: float


def stopped(
    counts: np.ndarray, right: np.ndarray, rule: Rule, *, limit: int, lengths: np.ndarray | None = None, window: int = 1
) -> Spending:
    r"""Returns exactly what any rule does that looks at counts of answers only, over all orders of the samples.

    A forward pass over vectors of counts: the next answer is a with chance :math:`(n_a - v_a) / (n - |v|)`; where the
    rule stops, or at `limit` samples, the plurality is the answer, equals by lot. A sample of a costs what samples of a
    have in tokens on average.

    Args:
        counts: ``[A]`` how often each answer was sampled (samples without an answer count as one that is wrong).
        right: ``[A] bool``.
        rule: given all counts and those within the current window, the counts whose plurality is the answer, or None.
        limit: most samples.
        lengths: ``[A]`` mean tokens of the samples of each answer; by default 1.
        window: samples of a window.
    """
    n = int(np.sum(counts))
    _check_k(limit, n)
    stock, good = [int(c) for c in counts], np.asarray(right, np.float64)
    cost = np.ones(len(stock)) if lengths is None else np.asarray(lengths, np.float64)
    nothing = (0,) * len(stock)
    front: dict[tuple[Counts, Counts], float] = {(nothing, nothing): 1.0}
    accuracy = samples = tokens = 0.0
    for drawn in range(limit):
        following: dict[tuple[Counts, Counts], float] = {}
        for (seen, recent), chance in front.items():
            for a, there in enumerate(stock):
                if there == seen[a]:
                    continue
                share = chance * (there - seen[a]) / (n - drawn)
                samples += share
                tokens += share * cost[a]
                now, latest = _add(seen, a), _add(recent, a)
                answer = rule(now, latest)
                if answer is None and drawn + 1 == limit:
                    answer = now
                if answer is not None:
                    accuracy += share * _plurality(answer, good)
                    continue
                state = (now, nothing if (drawn + 1) % window == 0 else latest)
                following[state] = following.get(state, 0.0) + share
        front = following
    return Spending(accuracy, samples, tokens)


def adaptive_consistency(threshold: float = 0.95) -> Rule:
    """Returns adaptive consistency's rule (https://arxiv.org/abs/2305.11860): from the second sample on, stop when the
    first answer leads the second with confidence above the threshold, 1 - F(1/2) of Beta(v1 + 1, v2 + 1)."""

    def rule(seen: Counts, _: Counts) -> Counts | None:
        second, first = sorted(seen)[-2:] if len(seen) > 1 else (0, seen[0])
        n = first + second + 1
        sure = sum(comb(n, i) for i in range(first + 1)) / 2**n > threshold
        return seen if sum(seen) >= 2 and sure else None

    return rule


def early_stopping(window: int) -> Rule:
    """Returns the rule of early-stopping self-consistency (https://arxiv.org/abs/2401.10480): a window of samples that
    all agree decides."""

    def rule(_: Counts, recent: Counts) -> Counts | None:
        return recent if sum(recent) == window and max(recent) == window else None

    return rule


def _add(counts: Counts, a: int) -> Counts:
    return (*counts[:a], counts[a] + 1, *counts[a + 1 :])


def _plurality(counts: Counts, right: np.ndarray) -> float:
    top = max(counts)
    first = [a for a, count in enumerate(counts) if count == top]
    return float(right[first].mean()) if top else 0.0


def _check_k(k: int, n: int) -> None:
    whole("k", k, low=1)
    if k > n:
        raise ConfigError(f"k is {k}, but only {n} samples are stored; sample more, or ask for fewer")
