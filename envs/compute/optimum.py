r"""What no controller can beat: exact optima where they are tractable, and bounds by name elsewhere.

Letters: N nodes, Q prompts, A answers.
"""

from __future__ import annotations

from functools import cache
from math import factorial, prod
from typing import Any, NamedTuple

import numba
import numpy as np

from treegym.checks import number, whole
from treegym.errors import ConfigError
from treegym.tree.flags import END

__all__ = [
    "BOUNDS",
    "Stopping",
    "best_oracle",
    "difficulty_oracle",
    "optimal_stopping",
    "unlabelled_oracle",
    "verified_cost",
    "verified_value",
]

_BLOCK = 64  # prompts whose weights are in memory at a time

BOUNDS = {
    "bayes_stopping": "exact for whole chains and answers without names: no prompt, length or score is looked at",
    "difficulty_oracle": "above every controller of whole chains that looks at counts: it knows each prompt's law of "
    "answers, and only not which one is right",
    "best_oracle": "above every controller of whole chains where the best score answers and none is dropped: it knows "
    "each prompt's chains with their scores and which are right, and only not which comes next",
    "unlabelled_oracle": "above every controller of whole chains, however it answers: it knows each prompt's chains, "
    "of what is right only the chances that all of them give, and not which comes next",
    "verified": "exact where a verifier tells a right end at once and every node can be sampled from again",
}


def verified_cost(tree: Any, probability: np.ndarray, *, cost: np.ndarray | float = 1.0) -> np.ndarray:
    r"""Returns the least expected tokens until a right end is found below each node ``[N] float64``.

    A verifier tells a right end at once, and any node visited may be sampled from again (recall). With t = 0 at right
    ends and infinite at wrong ones,

    .. math:: t(u) = c(u) + \sum_v \pi(v|u) \min(t(v), t(u)),

    whose solution goes on from the children that are worth it and samples u anew otherwise: with the children by rising
    t, the least of :math:`(c + \sum_{i \le k} \pi_i t_i) / \sum_{i \le k} \pi_i` over k.

    Args:
        tree: a closed tree.
        probability: ``[N]`` of every child given its parent.
        cost: tokens of one sample below a node, one number or ``[N]``.
    """
    price = np.broadcast_to(np.asarray(cost, np.float64), (tree.size,)).copy()
    right = ((tree.flags & END) != 0) & (tree.verdict >= 0.5)
    return _verified(tree.first_child, tree.child_count, np.asarray(probability, np.float64), right, price)


def verified_value(cost: np.ndarray, token_cost: float) -> np.ndarray:
    """Returns the best expected reward of prompts with these least costs: 1 - token_cost * cost, or 0 for giving up."""
    return np.maximum(1.0 - number("token_cost", token_cost, low=0) * np.minimum(cost, 1e300), 0.0)


@numba.njit(cache=True)
def _verified(first_child: Any, child_count: Any, probability: Any, right: Any, price: Any) -> Any:
    nodes = len(first_child)
    t = np.full(nodes, np.inf)
    for u in range(nodes - 1, -1, -1):
        if right[u]:
            t[u] = 0.0
            continue
        count = np.int64(child_count[u])
        if count == 0:
            continue
        first = np.int64(first_child[u])
        order = np.argsort(t[first : first + count])
        spent, mass, best = price[u], 0.0, np.inf
        for i in order:
            if t[first + i] == np.inf:
                break
            mass += probability[first + i]
            spent += probability[first + i] * t[first + i]
            if mass > 0.0:
                best = min(best, spent / mass)
        t[u] = best
    return t


class Stopping(NamedTuple):
    """The best that can be done by looking at how often unnamed answers came."""

    value: float  # expected reward
    accuracy: float
    tokens: float  # expected, in the unit of the costs
    samples: float
    stops: dict[tuple[int, ...], bool]  # for each multiset of counts that can be reached


def optimal_stopping(
    counts: np.ndarray, right: np.ndarray, *, limit: int, cost: float, lengths: np.ndarray | None = None
) -> Stopping:
    r"""Returns Bayes-optimal stopping over a finite set of prompts, each as likely, with answers that have no names.

    What is known after some samples is how often each distinct answer came: a partition of their number. Its weight
    under a prompt is :math:`\sum_\sigma \prod_i n_{\sigma(i)}^{\underline{\lambda_i}}` over all ways to name its parts,
    summed up answer by answer; posteriors, chances of the next sample and the chance that a part is the right answer
    are ratios of such weights. Samples are drawn without replacement.

    Args:
        counts: ``[Q, A]`` how often each answer is in the pool of each prompt; all prompts have equally many samples.
            Samples without an answer count as one more answer, which is wrong.
        right: ``[Q, A] bool``.
        limit: most samples.
        cost: what a token costs.
        lengths: ``[Q, A]`` mean tokens of the samples of each answer; by default 1.
    """
    counts = np.asarray(counts, np.int64)
    totals = counts.sum(axis=1)
    whole("limit", limit, low=1, high=int(totals.min()))
    if (totals != totals[0]).any():
        raise ConfigError(f"prompts have {totals.min()} to {totals.max()} samples; equally many were expected")
    number("cost", cost, low=0)
    price = np.ones(counts.shape) if lengths is None else np.asarray(lengths, np.float64)
    tables = _Weights(counts, np.asarray(right, np.float64), price * cost, limit)
    n = int(totals[0])

    @cache
    def best(parts: tuple[int, ...]) -> tuple[float, float, float, float, bool]:
        """Returns value, accuracy, cost and samples from here on, and whether to stop."""
        here = tables.weight[parts] if parts else 1.0
        stop = max((tables.right[parts, v] / here for v in set(parts)), default=0.0)
        if sum(parts) == limit:
            return stop, stop, 0.0, 0.0, True
        value = accuracy = spent = samples = 0.0
        for v in {0, *parts}:
            times = parts.count(v) if v else 1
            after = tuple(sorted([*_without(parts, v), v + 1], reverse=True))
            # Of the weights of `after`, those whose marked part is the new one: each of its equals is marked as often.
            share = times * tables.weight[after] / here / (n - sum(parts))
            if share <= 0.0:
                continue
            price = times * tables.price[after, v + 1] / here / (n - sum(parts))
            further = best(after)
            value += share * further[0] - price
            accuracy += share * further[1]
            spent += share * further[2] + price
            samples += share * (1.0 + further[3])
        return (stop, stop, 0.0, 0.0, True) if stop >= value else (value, accuracy, spent, samples, False)

    value, accuracy, spent, samples, _ = best(())
    reached = {parts: best(parts)[4] for parts in tables.weight if tables.weight[parts] > 0}
    return Stopping(value, accuracy, spent / cost if cost else float("nan"), samples, reached)


def difficulty_oracle(
    counts: np.ndarray, right: np.ndarray, *, limit: int, cost: float, lengths: np.ndarray | None = None
) -> Stopping:
    """Returns what could be reached if every prompt's law of answers were known, though not which one is right."""
    each = [
        optimal_stopping(
            counts[q : q + 1], right[q : q + 1], limit=limit, cost=cost,
            lengths=None if lengths is None else lengths[q : q + 1],
        )
        for q in range(len(counts))
    ]  # fmt: skip
    value, accuracy, tokens, samples = np.mean([one[:4] for one in each], axis=0).tolist()
    return Stopping(value, accuracy, tokens, samples, {})


def best_oracle(score: np.ndarray, correct: np.ndarray, lengths: np.ndarray, *, limit: int, cost: float) -> float:
    r"""Returns what no controller of whole chains can exceed at one prompt where the best-scored chain answers.

    The controller may drop no chain: whoever drops the best one answers with another. The bound knows all n chains of
    the prompt, and not which comes next; they are drawn without replacement. With the best chain so far i, the t drawn
    include none that scores higher, so each of those comes next with chance 1 / (n - t),

    .. math:: V_t(i) = \max\Big(r_i, \frac{\sum_{s_j > s_i} V_{t+1}(j) + (n - t - \#\{s_j > s_i\}) V_{t+1}(i)}{n - t}
        - c_t\Big).

    What was drawn tells a little about the lengths that are left; :math:`c_t` is what a draw would cost on average had
    the t longest been drawn, so the bound holds whatever is made of that, and is exact for equal lengths.

    Args:
        score: ``[n]`` of each chain.
        correct: ``[n]`` whether each is right, or what answering with it is worth.
        lengths: ``[n]`` tokens of each.
        limit: most chains.
        cost: what a token costs.
    """
    n = len(score)
    whole("limit", limit, low=1, high=n)
    number("cost", cost, low=0)
    right = np.asarray(correct, np.float64)
    score = np.asarray(score)
    above = score[None, :] > score[:, None]
    higher = above.sum(axis=1)
    left = np.cumsum(np.sort(np.asarray(lengths, np.float64)))[::-1]  # [n], tokens without the t longest chains
    value = right.copy()
    for t in range(limit - 1, 0, -1):
        further = (above @ value + (n - t - higher) * value) / (n - t) - cost * left[t] / (n - t)
        value = np.maximum(right, further)
    return max(float(value.mean()) - cost * float(left[0]) / n, 0.0)


def unlabelled_oracle(chance: np.ndarray, lengths: np.ndarray, *, limit: int, cost: float) -> float:
    r"""Returns what no controller of whole chains can exceed at one prompt, however it makes its answer.

    Let X be everything about the prompt but what is right: all its chains with their texts, scores, lengths, answers.
    What a controller does hangs on X and on the order of the chains alone, so the answer a that it ends with is right
    with :math:`P(a \text{ is right} \mid X)`, and its reward stays the same if it is paid that chance in place of the
    verdict. Telling it X, and letting it answer with any chain that was drawn, can only help: an information relaxation
    without a penalty (Brown, Smith & Sun 2010, https://doi.org/10.1287/opre.1090.0796). What is left is `best_oracle`'s
    problem with the chances for scores and for what is right. Being told what is right makes a chance 0 or 1.

    The chances are the caller's: with those of a reader that was fitted to other prompts, the bound holds for
    controllers that tell right from wrong no better than that reader does after seeing all chains.

    Args:
        chance: ``[n]`` of each chain's answer being right, given X; 0 for a chain without an answer.
        lengths: ``[n]`` tokens of each.
        limit: most chains.
        cost: what a token costs.
    """
    chance = np.asarray(chance, np.float64)
    if not ((chance >= 0) & (chance <= 1)).all():
        raise ConfigError(
            f"chances go from {np.min(chance)} to {np.max(chance)}; numbers between 0 and 1 were expected"
        )
    return best_oracle(chance, chance, lengths, limit=limit, cost=cost)


def _without(parts: tuple[int, ...], v: int) -> list[int]:
    rest = list(parts)
    if v:
        rest.remove(v)
    return rest


class _Weights:
    """Weights of partitions, averaged over prompts: of sequences of samples in which each part is one answer.

    `weight[parts]`; `right[parts, v]` where a given part of size v is a right answer; `price[parts, v]` times what a
    sample of that part's answer costs.
    """

    def __init__(self, counts: np.ndarray, right: np.ndarray, price: np.ndarray, limit: int) -> None:
        partitions = [p for size in range(1, limit + 1) for p in _partitions(size, size)]
        self.weight: dict[tuple[int, ...], float] = dict.fromkeys([(), *partitions], 0.0)
        self.right: dict[tuple[tuple[int, ...], int], float] = {(p, v): 0.0 for p in partitions for v in set(p)}
        self.price = dict(self.right)
        order = np.argsort(-counts, axis=1, kind="stable")  # frequent answers first: the last ones are soon nobody's
        counts, right, price = (np.take_along_axis(rows, order, axis=1) for rows in (counts, right, price))
        for start in range(0, len(counts), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._add(counts[block], right[block], price[block], partitions, len(counts))

    def _add(
        self, counts: np.ndarray, right: np.ndarray, price: np.ndarray, partitions: list[tuple[int, ...]], prompts: int
    ) -> None:
        """Adds some prompts; answer by answer, each of which may be what one part stands for, or none."""
        size = len(counts)
        plain = {(): np.ones(size), **{p: np.zeros(size) for p in partitions}}
        good, paid = ({key: np.zeros(size) for key in self.right} for _ in range(2))
        falling = [np.ones(counts.shape)]
        for i in range(sum(partitions[-1])):
            falling.append(falling[-1] * np.maximum(counts - i, 0))
        for a in range(counts.shape[1]):
            largest = int(counts[:, a].max())
            for parts in reversed(partitions if largest else []):  # larger ones first: an answer is one part only
                for u in {part for part in parts if part <= largest}:
                    rest, way = tuple(_without(parts, u)), falling[u][:, a]
                    good[parts, u] += plain[rest] * way * right[:, a]
                    paid[parts, u] += plain[rest] * way * price[:, a]
                    for v in set(rest):
                        good[parts, v] += good[rest, v] * way
                        paid[parts, v] += paid[rest, v] * way
                    plain[parts] += plain[rest] * way
        for parts, weight in plain.items():
            self.weight[parts] += float(weight.sum()) / prompts * _orders(parts)
        for (parts, v), weight in good.items():
            self.right[parts, v] += float(weight.sum()) / prompts * _orders(parts) / parts.count(v)
            self.price[parts, v] += float(paid[parts, v].sum()) / prompts * _orders(parts) / parts.count(v)


def _partitions(size: int, largest: int) -> list[tuple[int, ...]]:
    """Returns the partitions of a number into parts of at most `largest`, parts falling."""
    if size == 0:
        return [()]
    return [
        (part, *rest) for part in range(min(size, largest), 0, -1) for rest in _partitions(size - part, part)
    ]  # fmt: skip


def _orders(parts: tuple[int, ...]) -> int:
    """Returns in how many ways equal parts can be told apart."""
    return prod(factorial(parts.count(v)) for v in set(parts))
