"""Child weights: what experience says of each child, apart from any policy.

Children start at 1/n. After an episode, a child on its path from which no correct end can be reached loses weight; one
from which a correct end can be reached gains, but only when the episode's return beat that root's last return. So a
teacher's path is never reinforced just for being taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treegym.errors import ConfigError

if TYPE_CHECKING:
    from treegym.tree.token_tree import TokenTree

__all__ = ["ChildWeights", "initial_weights", "similarity_scores"]


def initial_weights(first_child: np.ndarray, child_count: np.ndarray) -> np.ndarray:
    """Returns 1/n for each of n siblings and 1 for roots, float32 [N]."""
    weights = np.ones(len(first_child), np.float32)
    parents = np.flatnonzero(child_count > 0)
    counts = child_count[parents].astype(np.int64)
    starts = np.repeat(first_child[parents].astype(np.int64), counts)
    within = np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
    weights[starts + within] = np.repeat(1.0 / counts, counts)
    return weights


class ChildWeights:
    """Weights of a tree's children, and what each root last returned.

    A loss multiplies a weight by ``1 - rate``; a gain moves it by `rate` of the way to 1. Siblings are not
    renormalised: a loss of one is no merit of another.
    """

    def __init__(self, tree: TokenTree, *, rate: float = 0.1, floor: float = 1e-3) -> None:
        """Starts from the tree's weights where it has them, else from 1/n."""
        if not 0.0 < rate < 1.0:
            raise ConfigError(f"rate is {rate!r}; it must lie between 0 and 1")
        self.rate, self.floor = float(rate), float(floor)
        self.weights = initial_weights(tree.first_child, tree.child_count)  # [N] float32
        if tree.has("weight"):
            known = ~np.isnan(tree.weight)
            self.weights[known] = tree.weight[known]
        self.last_return = np.full(tree.num_roots, np.nan)  # [R], NaN before the first episode

    def update(self, root: int, path: np.ndarray, *, right: np.ndarray, episode_return: float) -> None:
        """Learns from one episode.

        Args:
            root: index of the root.
            path: int [T], nodes of the path below the root.
            right: bool [T], whether a correct end can be reached from each (in a live tree: whether it was proposed
                in the right direction). Only known on training roots.
            episode_return: the episode's return.
        """
        if not np.isfinite(episode_return):
            raise ConfigError(f"the return of root {root} is {episode_return}; it must be finite")
        nodes, good = np.asarray(path, np.int64), np.asarray(right, np.bool_)
        if nodes.shape != good.shape or nodes.ndim != 1:
            raise ConfigError(f"path has shape {nodes.shape} and right {good.shape}; expected the same [steps]")
        if len(nodes) and not (nodes.min() >= 0 and nodes.max() < len(self.weights)):
            raise ConfigError(f"a path node is out of range; the tree has {len(self.weights)} nodes")
        wrong = nodes[~good]
        self.weights[wrong] = np.maximum(self.weights[wrong] * (1.0 - self.rate), self.floor)
        before = self.last_return[root]
        if episode_return > before:  # never true for NaN: a first episode improves on nothing
            gaining = nodes[good]
            self.weights[gaining] += self.rate * (1.0 - self.weights[gaining])
        self.last_return[root] = episode_return


def similarity_scores(tree: TokenTree, weights: np.ndarray) -> np.ndarray:
    """Returns weight * cosine of each node, float32 [N]: what the search method "similarity" descends by."""
    cosine = np.nan_to_num(np.asarray(tree.similarity, np.float32))
    return np.asarray(weights, np.float32) * cosine
