"""Keeping the part of a tree below the move that was played."""

from __future__ import annotations

import numpy as np

from treegym.search.kernels.batch import tree_of
from treegym.search.kernels.numeric import kernel
from treegym.search.tree import EMPTY

__all__ = ["move_roots"]


@kernel
def move_roots(old, new, kept, renumber, queue):
    """Copies the tree below node ``kept[b]`` of every old tree into the new trees, in breadth-first order.

    ``renumber[b, n]`` becomes the new number of old node n, -1 where it is dropped. A tree with ``kept[b] < 0`` is left
    empty. Nodes that several parents share are copied once.
    """
    for b in range(len(kept)):
        source, target = tree_of(old, b), tree_of(new, b)
        for n in range(renumber.shape[1]):
            renumber[b, n] = -1
        target.size[0] = 0
        if kept[b] < 0:
            continue
        queue[0] = kept[b]
        renumber[b, kept[b]] = 0
        size = 1
        at = 0
        while at < size:
            node = queue[at]
            target.width[at] = source.width[node]
            target.seen[at] = source.seen[node]
            target.value[at] = source.value[node]
            target.raw[at] = source.raw[node]
            target.reward[at] = source.reward[node]
            target.status[at] = source.status[node]
            for k in range(source.width[node]):
                target.prior[at, k] = source.prior[node, k]
                target.visits[at, k] = source.visits[node, k]
                target.q[at, k] = source.q[node, k]
                target.action[at, k] = source.action[node, k]
                child = source.child[node, k]
                if child >= 0 and renumber[b, child] < 0:
                    renumber[b, child] = size
                    queue[size] = child
                    size += 1
                target.child[at, k] = renumber[b, child] if child >= 0 else np.int32(EMPTY)
            at += 1
        target.size[0] = size
