"""The batch: every root goes down until it needs an evaluation, and takes its evaluation back up."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from treegym.search.kernels.codes import NOTHING_WRONG
from treegym.search.kernels.numeric import inlined, kernel
from treegym.search.kernels.walk import Root, attach, backup, descend, fill_dense
from treegym.search.tree import EMPTY, PENDING, SOLVED, Nodes

__all__ = ["gather", "move_roots", "plant", "scatter", "tree_of", "with_size"]


@inlined
def tree_of(trees, b):
    """Returns the tree of root b, as views."""
    return Nodes(
        trees.prior[b],
        trees.visits[b],
        trees.q[b],
        trees.child[b],
        trees.action[b],
        trees.width[b],
        trees.seen[b],
        trees.value[b],
        trees.raw[b],
        trees.reward[b],
        trees.status[b],
        trees.size[b],
    )


@inlined
def with_size(nodes, size):
    """Returns the same nodes, of which `size` [1] says how many are in use."""
    return Nodes(
        nodes.prior,
        nodes.visits,
        nodes.q,
        nodes.child,
        nodes.action,
        nodes.width,
        nodes.seen,
        nodes.value,
        nodes.raw,
        nodes.reward,
        nodes.status,
        size,
    )


@inlined
def root_of(roots, b):
    """Returns what is kept for root b, as views."""
    return Root(roots.done[b], roots.noisy[b], roots.before[b], roots.stream[b], roots.draws[b])


@kernel
def plant(trees, rows, logits, value, legal, mode, problems):
    """Gives some trees their root node; writes what is wrong with row i (see `fill_dense`) into ``problems[i]``."""
    for i in range(len(rows)):
        tree = tree_of(trees, rows[i])
        tree.size[0] = 0
        new = attach(tree, -1, 0, np.float32(0.0), value[i], False)
        problems[i] = fill_dense(tree, new, logits[i], legal[i], mode)


@functools.cache
def gather(rule: int, plain: bool) -> Any:
    """Returns the kernel for a rule that sends roots down for leaves to evaluate.

    A root stops when `each` leaves of it wait or its budget is spent.

    A simulation that ends in a terminal needs no evaluation and is backed up at once. A leaf that waits counts as a
    visit on its way (so that the next one of the same root goes elsewhere), taken back by `scatter`. Row i of `paths`
    [2, B * each, D] holds the way to leaf i, ``lengths[i]`` its length, ``owners[i]`` its root. Returns how many wait.
    """

    @kernel
    def gather_kernel(trees, roots, settings, budget, each, scores, paths, lengths, owners):
        waiting = 0
        for b in range(len(budget)):
            tree, root = tree_of(trees, b), root_of(roots, b)
            mine = 0
            while mine < each and root.done[0] < budget[b] and not tree.status[0] & SOLVED:
                path_node, path_slot = paths[0, waiting], paths[1, waiting]
                depth = descend(rule, plain, False, tree, settings, root, scores, path_node, path_slot)
                node, slot = path_node[depth - 1], path_slot[depth - 1]
                child = tree.child[node, slot]
                if child == PENDING:
                    break  # two leaves of this root fell on one child: evaluate what there is first
                if child >= 0:
                    backup(plain, tree, settings, path_node, path_slot, depth, tree.value[child])
                    root.done[0] += 1
                    continue
                if tree.size[0] + mine >= len(tree.width):
                    break
                tree.child[node, slot] = PENDING
                tree.q[node, slot] = tree.value[node]  # neutral until it is known; the visit alone turns others away
                if each > 1:
                    for d in range(depth):
                        tree.visits[path_node[d], path_slot[d]] += 1
                        tree.seen[path_node[d]] += 1
                root.done[0] += 1
                lengths[waiting] = depth
                owners[waiting] = b
                waiting += 1
                mine += 1
        return waiting

    return gather_kernel


@kernel
def scatter(trees, settings, each, way, told, mode, problems, numbers):
    """Attaches the evaluated leaves and backs their values up, in the order they were gathered.

    `way` holds the paths, lengths and owners of `gather`; `told` what became of each leaf: ``row[i]`` is the row of
    leaf i in `logits`, `value` and `legal` (terminal leaves have none: -1), ``link[i]`` a node of the same tree that
    stands for the same state, or -1. Writes the number of each new node into `numbers` (-1 for a linked leaf).
    """
    waiting = len(told.reward)
    if each > 1:
        for i in range(waiting):
            tree = tree_of(trees, way.owners[i])
            for d in range(way.lengths[i]):
                tree.visits[way.paths[0, i, d], way.paths[1, i, d]] -= 1
                tree.seen[way.paths[0, i, d]] -= 1
    for i in range(waiting):
        tree = tree_of(trees, way.owners[i])
        depth = way.lengths[i]
        node, slot = way.paths[0, i, depth - 1], way.paths[1, i, depth - 1]
        link, ended, row = told.link[i], told.terminal[i], told.row[i]
        problems[i] = NOTHING_WRONG
        if link >= 0:
            tree.child[node, slot] = link
            numbers[i] = -1
            judged = tree.value[link]
        else:
            judged = np.float32(0.0) if ended else told.value[row]
            new = attach(tree, node, slot, told.reward[i], judged, ended)
            numbers[i] = new
            if not ended:
                problems[i] = fill_dense(tree, new, told.logits[row], told.legal[row], mode)
        backup(False, tree, settings, way.paths[0, i], way.paths[1, i], depth, judged)


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
