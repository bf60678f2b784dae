"""What a reward needs of a token tree: flat arrays, paths and texts. Anything with these satisfies it.

Shapes: N nodes, R roots, M teachers. A parent's index is always below its children's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

__all__ = [
    "EOS",
    "EXPANDED",
    "GREEDY",
    "PUNCTUATION",
    "STOPPED",
    "TreeSource",
    "ancestors",
    "distinct",
    "flagged_ends",
    "path_of",
    "path_sums",
]

# The bits of `flags`; equal to those of tree/flags.py, which this floor must not import (a test compares).
EXPANDED = 1
EOS = 2
STOPPED = 4
PUNCTUATION = 8
GREEDY = 16


class TreeSource(Protocol):
    """A read-only view of a token tree. `TokenTree` satisfies it, and so does a test's few arrays."""

    @property
    def size(self) -> int: ...  # N
    @property
    def token(self) -> np.ndarray: ...  # [N] int32
    @property
    def parent(self) -> np.ndarray: ...  # [N] int32, -1 at a root
    @property
    def first_child(self) -> np.ndarray: ...  # [N] int32
    @property
    def child_count(self) -> np.ndarray: ...  # [N] uint16
    @property
    def depth(self) -> np.ndarray: ...  # [N] uint16
    @property
    def flags(self) -> np.ndarray: ...  # [N] uint16
    @property
    def prior(self) -> np.ndarray: ...  # [N] float32, log-probability of the token after its parent
    @property
    def teacher_logp(self) -> np.ndarray: ...  # [N, M] float16, NaN without an opinion
    @property
    def proposers(self) -> np.ndarray: ...  # [N] uint32, one bit a model
    @property
    def similarity(self) -> np.ndarray: ...  # [N] float16
    @property
    def verdict(self) -> np.ndarray: ...  # [N] float32, NaN where unknown
    @property
    def judge(self) -> np.ndarray: ...  # [N] float32, NaN where not asked
    @property
    def root_node(self) -> np.ndarray: ...  # [R] int32
    @property
    def prompts(self) -> Sequence[str]: ...  # [R]
    @property
    def answers(self) -> Sequence[str]: ...  # [R]
    @property
    def kinds(self) -> Sequence[str]: ...  # [R]
    @property
    def header(self) -> Mapping[str, Any]: ...

    def root_of(self, nodes: Any) -> Any:
        """Returns the root number (0 .. R-1) of each node."""
        ...

    def path(self, node: int) -> np.ndarray:
        """Returns the token ids below the root down to and with `node`."""
        ...

    def text(self, node: int) -> str:
        """Returns the text of that path."""
        ...


def flagged_ends(source: TreeSource, nodes: np.ndarray) -> np.ndarray:
    """Returns which of `nodes` are real terminals: end-of-sequence, or stopped by stored detection."""
    return (np.asarray(source.flags)[nodes] & (EOS | STOPPED)) != 0


def path_sums(source: TreeSource, above: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns values summed from the root down to each node, ``[A]``, roots left out.

    Args:
        source: the tree.
        above: ``[A]`` nodes with all their ancestors, rising (what `ancestors` returns).
        values: ``[A]`` one number a node.
    """
    depth = np.asarray(source.depth)[above].astype(np.int64)
    sums = np.where(depth > 0, values, 0.0)
    position = np.searchsorted(above, np.asarray(source.parent)[above])  # meaningless at roots, which are left out
    order = np.argsort(depth, kind="stable")
    cuts = np.searchsorted(depth[order], np.arange(1, int(depth.max(initial=0)) + 2))
    for low, high in itertools.pairwise(cuts):  # a level at a time, so parents are summed already
        here = order[low:high]
        sums[here] += sums[position[here]]
    return sums


def path_of(source: TreeSource, node: int) -> np.ndarray:
    """Returns the nodes of a path, first below the root, `node` last."""
    parent = source.parent
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


def ancestors(source: TreeSource, nodes: np.ndarray) -> np.ndarray:
    """Returns `nodes` and everything above them, roots too, each once and in rising order."""
    front = distinct(nodes)
    found = [front]
    while front.size:
        above = np.asarray(source.parent)[front]
        front = np.unique(above[above >= 0])
        found.append(front)
    return np.unique(np.concatenate(found)).astype(np.int64)
