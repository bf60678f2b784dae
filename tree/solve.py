"""Backward induction: the exact optimum of a closed tree, for any reward table and discount, in one compiled pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

from treegym.errors import ConfigError
from treegym.tree.flags import END

if TYPE_CHECKING:
    from treegym.tree.token_tree import TokenTree

__all__ = ["Solution", "best_path", "solve"]


class Solution(NamedTuple):
    """What is knowable of every node when the whole tree is known."""

    value: np.ndarray  # [N] float64, best discounted return from here on (0 at a terminal)
    best_child: np.ndarray  # [N] int32, the action that attains it; -1 where there is none
    shortest: np.ndarray  # [N] int32, fewest steps from here to a correct end; -1 where none can be reached
    shortest_child: np.ndarray  # [N] int32, the action on that shortest way; -1 where there is none

    @property
    def reachable(self) -> np.ndarray:
        """Whether a correct end can be reached ``[N] bool``."""
        return self.shortest >= 0


@numba.njit(cache=True)
def _backward(
    parent: Any, first_child: Any, depth: Any, terminal: Any, correct: Any, reward: Any, discount: Any, max_depth: Any
) -> Any:
    nodes = len(parent)
    value = np.full(nodes, -np.inf)
    best_child = np.full(nodes, -1, np.int32)
    shortest = np.full(nodes, -1, np.int32)
    shortest_child = np.full(nodes, -1, np.int32)
    # Children come after their parents, so when a node's turn comes, walking backwards, it has heard from all of them.
    for i in range(nodes - 1, -1, -1):
        if terminal[i]:
            shortest[i] = 0 if correct[i] else -1
        if terminal[i] or depth[i] >= max_depth or best_child[i] == -1:
            value[i] = 0.0
            best_child[i] = -1
            shortest_child[i] = -1
            if not terminal[i]:
                shortest[i] = -1
        above = parent[i]
        if above < 0:
            continue
        candidate = reward[i] + discount * value[i]
        # The first child wins a tie, and children are met last to first.
        if best_child[above] == -1 or candidate >= value[above]:
            value[above] = candidate
            best_child[above] = i - first_child[above]
        if shortest[i] >= 0 and (shortest[above] == -1 or shortest[i] + 1 <= shortest[above]):
            shortest[above] = shortest[i] + 1
            shortest_child[above] = i - first_child[above]
    return value, best_child, shortest, shortest_child


def solve(
    tree: TokenTree,
    reward: np.ndarray,
    *,
    discount: float = 1.0,
    terminal: np.ndarray | None = None,
    correct: np.ndarray | None = None,
    max_depth: int | None = None,
) -> Solution:
    """Returns optimal values, actions and shortest correct paths for every node.

    ``V(n) = max over children c of reward[c] + discount * V(c)``, with V = 0 at terminals and where the budget ends.

    Args:
        tree: a closed tree (a node that was never expanded counts as worth 0).
        reward: ``[N]`` what entering each node pays.
        discount: how much a step later counts less.
        terminal: ``[N] bool`` where episodes end; by default where the tree ends.
        correct: ``[N] bool`` which terminals are correct; by default those with a verdict of at least 0.5.
        max_depth: the token budget; a path that has used it up ends without a terminal.
    """
    reward = np.asarray(reward, np.float64)
    if reward.shape != (tree.size,):
        raise ConfigError(f"the reward table has shape {reward.shape}; the tree has {tree.size} nodes")
    if not (isinstance(discount, int | float | np.number) and 0.0 <= discount < np.inf):
        raise ConfigError(f"the discount is {discount!r}; a number of at least 0, usually at most 1, was expected")
    if np.isnan(reward).any():
        raise ConfigError(f"the reward of node {int(np.flatnonzero(np.isnan(reward))[0])} is NaN")
    ends = (tree.flags & END) != 0 if terminal is None else np.asarray(terminal, bool)
    right = tree.verdict >= 0.5 if correct is None else np.asarray(correct, bool)
    budget = np.iinfo(np.int32).max if max_depth is None else max_depth
    return Solution(
        *_backward(tree.parent, tree.first_child, tree.depth, ends, right & ends, reward, float(discount), budget)
    )


def best_path(tree: TokenTree, choice: np.ndarray, node: int) -> list[int]:
    """Returns the nodes below `node` along an action per node ``[N]`` (such as ``solution.best_child``)."""
    path = []
    while choice[node] >= 0:
        node = int(tree.first_child[node]) + int(choice[node])
        path.append(node)
    return path
