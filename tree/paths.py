"""Paths of a tree: what lies above nodes, and sums along the way down to them. Letters: A nodes with all above them."""

from __future__ import annotations

import itertools

import numpy as np

from treegym.tree.flags import END
from treegym.tree.token_tree import TokenTree

__all__ = ["ancestors", "distinct", "flagged_ends", "path_of", "path_sums"]


def flagged_ends(tree: TokenTree, nodes: np.ndarray) -> np.ndarray:
    """Returns which of `nodes` are real terminals: end-of-sequence, or stopped by stored detection."""
    return (np.asarray(tree.flags)[nodes] & END) != 0


def path_sums(tree: TokenTree, above: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns values summed from the root down to each node, ``[A]``, roots left out.

    Args:
        tree: the tree.
        above: ``[A]`` nodes with all their ancestors, rising (what `ancestors` returns).
        values: ``[A]`` one number per node.
    """
    depth = np.asarray(tree.depth)[above].astype(np.int64)
    sums = np.where(depth > 0, values, 0.0)
    position = np.searchsorted(above, np.asarray(tree.parent)[above])  # meaningless at roots, which are left out
    order = np.argsort(depth, kind="stable")
    cuts = np.searchsorted(depth[order], np.arange(1, int(depth.max(initial=0)) + 2))
    for low, high in itertools.pairwise(cuts):  # level by level, so parents are summed already
        here = order[low:high]
        sums[here] += sums[position[here]]
    return sums


def path_of(tree: TokenTree, node: int) -> np.ndarray:
    """Returns the nodes of a path, first below the root, `node` last."""
    parent = tree.parent
    nodes: list[int] = []
    while parent[node] >= 0:
        nodes.append(node)
        node = int(parent[node])
    return np.array(nodes[::-1], dtype=np.int64)


def distinct(nodes: np.ndarray) -> np.ndarray:
    """Returns nodes each once and rising; costs nothing where they are that already, as whole trees are."""
    if len(nodes) < 2 or (nodes[1:] > nodes[:-1]).all():
        return nodes
    return np.unique(nodes)


def ancestors(tree: TokenTree, nodes: np.ndarray) -> np.ndarray:
    """Returns `nodes` and everything above them, roots too, each once and in rising order."""
    front = distinct(nodes)
    found = [front]
    while front.size:
        above = np.asarray(tree.parent)[front]
        front = np.unique(above[above >= 0])
        found.append(front)
    return np.unique(np.concatenate(found)).astype(np.int64)
