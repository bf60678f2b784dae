"""Backward induction under a policy: the exact value of every node, of every action, and the advantage of each.

Letters: N nodes, M teachers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from treegym.errors import ConfigError, suggest
from treegym.tree.flags import END

__all__ = ["Values", "child_probabilities", "reach", "renormalised", "values"]

Tree = Any  # a TokenTree, which imports this module: naming it here would lead imports in a circle
SLACK = 1e-5  # how far the probabilities of siblings may be from 1 in sum: float32 tables of many children


class Values(NamedTuple):
    """What a policy is worth everywhere. An action is named by the child that it leads to."""

    value: np.ndarray  # [N] float64, V: expected discounted return from here on; 0 at a terminal
    action_value: np.ndarray  # [N] float64, Q of the action that leads here: reward + discount * V; a root's is its V
    advantage: np.ndarray  # [N] float64, A = Q - V of the parent; 0 at roots
    probability: np.ndarray  # [N] float64, what the policy gives the action that leads here; 1 at roots


def values(
    tree: Tree,
    policy: str | np.ndarray = "primary",
    *,
    reward: np.ndarray | None = None,
    discount: float = 1.0,
    terminal: np.ndarray | None = None,
) -> Values:
    r"""Returns the exact values of a policy over the children of every node.

    .. math:: V(u) = \sum_v \pi(v|u) Q(v), \quad Q(v) = r(v) + \gamma V(v), \quad A(v) = Q(v) - V(u)

    Args:
        tree: a closed tree (a node that was never expanded counts as worth 0).
        policy: "primary" (its log-probabilities, renormalised over the children), a teacher's name, "uniform", or a
            table ``[N]`` with the probability of every child given its parent.
        reward: ``[N]`` what entering each node pays; by default the verdict of a correct end.
        discount: how much a step later counts less.
        terminal: ``[N] bool`` where episodes end; by default where the tree ends.
    """
    paid = np.nan_to_num(np.asarray(tree.verdict, np.float64)) if reward is None else np.asarray(reward, np.float64)
    if paid.shape != (tree.size,):
        raise ConfigError(f"the reward table has shape {paid.shape}; the tree has {tree.size} nodes")
    if not (isinstance(discount, int | float | np.number) and 0.0 <= discount < np.inf):
        raise ConfigError(f"the discount is {discount!r}; a number of at least 0, usually at most 1, was expected")
    if not np.isfinite(paid).all():
        raise ConfigError(f"the reward of node {int(np.flatnonzero(~np.isfinite(paid))[0])} is not a finite number")
    chosen = child_probabilities(tree, policy)
    ends = (tree.flags & END) != 0 if terminal is None else np.asarray(terminal, np.bool_)
    if ends.shape != (tree.size,):
        raise ConfigError(f"the table of terminals has shape {ends.shape}; the tree has {tree.size} nodes")
    value, action_value, advantage = _backward(tree.parent, ends, chosen, paid, float(discount))
    return Values(value, action_value, advantage, chosen)


def child_probabilities(tree: Tree, policy: str | np.ndarray = "primary") -> np.ndarray:
    """Returns the probability of every child given its parent ``[N] float64``, 1 at roots.

    A teacher without an opinion on some children gives them nothing; where it has none at all, the primary chooses.
    """
    if not isinstance(policy, str):
        return _checked_table(tree, np.asarray(policy))
    if policy == "uniform":
        return _normalised(tree.parent, np.zeros(tree.size))
    own = np.asarray(tree.prior, np.float64)
    if policy == "primary":
        return _normalised(tree.parent, own)
    if policy not in tree.teachers:
        raise ConfigError(f"the policy is {policy!r}.{suggest(policy, ['primary', 'uniform', *tree.teachers])}")
    said = np.asarray(tree.teacher_logp[:, tree.teachers.index(policy)], np.float64)
    parent = np.asarray(tree.parent)
    heard = np.bincount(parent[parent >= 0], ~np.isnan(said[parent >= 0]), minlength=tree.size) > 0
    silent = ~heard[np.maximum(parent, 0)]
    return _normalised(tree.parent, np.where(silent, own, np.where(np.isnan(said), -np.inf, said)))


def renormalised(tree: Tree, scores: np.ndarray) -> np.ndarray:
    """Returns log-probabilities or logits of children ``[N]`` as probabilities among siblings ``[N] float64``."""
    scores = np.asarray(scores, np.float64)
    if scores.shape != (tree.size,) or np.isnan(scores).any() or (scores == np.inf).any():
        raise ConfigError(
            f"scores of children came as {scores.shape}; {tree.size} numbers below infinity were expected"
        )
    return _normalised(tree.parent, scores)


def reach(tree: Tree, probability: np.ndarray) -> np.ndarray:
    """Returns the probability of coming through each node from its root ``[N] float64``: products down the paths."""
    return _forward(tree.parent, np.asarray(probability, np.float64))


def _checked_table(tree: Tree, table: np.ndarray) -> np.ndarray:
    """Returns a given policy as float64; raises unless the children of every node have probabilities that sum to 1."""
    if table.shape != (tree.size,) or table.dtype.kind not in "fiu":
        raise ConfigError(
            f"the policy is a table of {table.dtype} {table.shape}; one probability for each of the tree's "
            f"{tree.size} nodes was expected"
        )
    chosen = table.astype(np.float64)
    node, total = _first_unsound(tree.parent, tree.first_child, tree.child_count, chosen, SLACK)
    if node >= 0:
        raise ConfigError(
            f"the probabilities of the children of node {node} sum to {total:.6g}, each at least 0 and 1 in sum was "
            "expected; `renormalised` makes probabilities of scores"
        )
    return chosen


@numba.njit(cache=True)
def _first_unsound(parent: Any, first_child: Any, child_count: Any, chosen: Any, slack: Any) -> Any:
    for u in range(len(parent)):
        if parent[u] < 0:
            chosen[u] = 1.0
        count = np.int64(child_count[u])
        if count == 0:
            continue
        total, sound = 0.0, True
        for v in range(first_child[u], first_child[u] + count):
            total += chosen[v]
            sound = sound and chosen[v] >= 0.0
        if not sound or not abs(total - 1.0) <= slack:
            return u, total
    return -1, 1.0


@numba.njit(cache=True)
def _normalised(parent: Any, scores: Any) -> Any:
    """Returns a softmax among siblings; a family in which every score is minus infinity is taken as uniform."""
    nodes = len(parent)
    top = np.full(nodes, -np.inf)
    for i in range(nodes):
        if parent[i] >= 0:
            top[parent[i]] = max(top[parent[i]], scores[i])
    total = np.zeros(nodes)
    chosen = np.ones(nodes)
    for i in range(nodes):
        above = parent[i]
        if above >= 0:
            chosen[i] = np.exp(scores[i] - top[above]) if top[above] > -np.inf else 1.0
            total[above] += chosen[i]
    for i in range(nodes):
        if parent[i] >= 0:
            chosen[i] /= total[parent[i]]
    return chosen


@numba.njit(cache=True)
def _backward(parent: Any, terminal: Any, chosen: Any, reward: Any, discount: Any) -> Any:
    nodes = len(parent)
    value = np.zeros(nodes)
    action_value = np.empty(nodes)
    advantage = np.empty(nodes)
    # Children come after their parents, so when a node's turn comes, walking backwards, it has heard from all of them.
    for i in range(nodes - 1, -1, -1):
        if terminal[i]:
            value[i] = 0.0
        above = parent[i]
        if above < 0:
            action_value[i] = value[i]
            continue
        action_value[i] = reward[i] + discount * value[i]
        value[above] += chosen[i] * action_value[i]
    for i in range(nodes):
        advantage[i] = 0.0 if parent[i] < 0 else action_value[i] - value[parent[i]]
    return value, action_value, advantage


@numba.njit(cache=True)
def _forward(parent: Any, chosen: Any) -> Any:
    way = np.ones(len(parent))
    for i in range(len(parent)):
        if parent[i] >= 0:
            way[i] = way[parent[i]] * chosen[i]
    return way
