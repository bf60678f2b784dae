"""The batch: every root goes down until it needs an evaluation, and takes its evaluation back up."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from treegym.search.kernels.codes import NOTHING_WRONG, RULE_GUMBEL
from treegym.search.kernels.numeric import inlined, kernel
from treegym.search.kernels.walk import Root, attach, attach_chance, backup, counted, descend, fill_dense, walked
from treegym.search.tree import EMPTY, PENDING, PLAYER, SOLVED, Nodes

__all__ = ["gather", "move_roots", "plant", "scatter", "take_back", "tree_of", "with_size"]

_PATIENCE = 4  # leaves that were asked for already may be come upon so often, per leaf wanted


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
def plant(trees, rows, logits, value, legal, second, mode, problems):
    """Gives some trees their root node; writes what is wrong with row i (see `fill_dense`) into ``problems[i]``."""
    for i in range(len(rows)):
        tree = tree_of(trees, rows[i])
        tree.size[0] = 0
        new = attach(tree, -1, 0, np.float32(0.0), value[i], False)
        if second[i]:
            tree.status[new] |= np.uint8(PLAYER)
        problems[i] = fill_dense(tree, new, logits[i], legal[i], mode)


@inlined
def expect(tree, settings, way, i, start, change):
    """Counts a visit (or takes it back) of everything on the way to leaf i, from step `start` on."""
    for d in range(start, way.lengths[i]):
        node, entry = way.paths[0, i, d], np.int64(way.paths[1, i, d])
        instead = counted(entry)
        if instead >= 0:
            tree.visits[node, instead] += change
        if instead < 0 or not (settings.rule == RULE_GUMBEL and node == 0):
            tree.visits[node, walked(entry)] += change
        tree.seen[node] += change


@inlined
def first_discouraged(settings):
    """Returns the step from which on the way to a leaf is discouraged: halving plans every visit of a root's child."""
    return 1 if settings.rule == RULE_GUMBEL else 0


@inlined
def come_upon(way, first, last, node, slot):
    """Returns which of the waiting leaves `first` to `last` lies below `slot` of `node`."""
    for i in range(first, last):
        end = way.lengths[i] - 1
        if way.paths[0, i, end] == node and walked(np.int64(way.paths[1, i, end])) == slot:
            return i
    return -1


@inlined
def discourage(tree, settings, way, i):
    """Counts one visit more of the way to leaf i, so that the next simulation goes elsewhere; False if it cannot be.

    Visits alone, as in https://arxiv.org/abs/1810.11755: they stand for what the waiting evaluations will add. Lowering
    Q as well, as virtual loss does, spread the visits so far that the move played got worse (see docs/log.md).
    """
    start = first_discouraged(settings)
    if i < 0 or way.lengths[i] <= start:
        return False
    expect(tree, settings, way, i, start, 1)
    way.again[i] += 1
    return True


@inlined
def forget(tree, settings, way, i):
    """Takes back the visits that `expect` and `discourage` counted for leaf i."""
    expect(tree, settings, way, i, 0, -1)
    if way.again[i] > 0:
        expect(tree, settings, way, i, first_discouraged(settings), -way.again[i])


@kernel
def take_back(trees, roots, settings, each, way, waiting):
    """Makes it as if the waiting leaves had never been asked for."""
    for i in range(waiting):
        tree, root = tree_of(trees, way.owners[i]), root_of(roots, way.owners[i])
        if each > 1:
            forget(tree, settings, way, i)
        last = way.lengths[i] - 1
        tree.child[way.paths[0, i, last], walked(np.int64(way.paths[1, i, last]))] = EMPTY
        root.done[0] -= 1


@functools.cache
def gather(rule: int, plain: bool) -> Any:
    """Returns the kernel for a rule that sends roots down for leaves to evaluate.

    A root stops when `each` leaves of it wait or its budget is spent.

    A simulation that ends in a terminal needs no evaluation and is backed up at once. A leaf that waits counts as a
    visit on its way (so that the next one of the same root goes elsewhere), and one more each time it is come upon
    again; `scatter` takes that back. Row i of ``way.paths``
    [2, B * each, D] holds the way to leaf i, ``way.lengths[i]`` its length, ``way.owners[i]`` its root,
    ``way.again[i]`` how often it was come upon again. Writes how many wait into `count` [1].
    """

    @kernel
    def gather_kernel(trees, roots, settings, budget, each, scores, way, count):
        waiting = 0
        for b in range(len(budget)):
            tree, root = tree_of(trees, b), root_of(roots, b)
            mine, patience = 0, _PATIENCE * each
            while mine < each and root.done[0] < budget[b] and not tree.status[0] & SOLVED:
                path_node, path_slot = way.paths[0, waiting], way.paths[1, waiting]
                depth = descend(rule, plain, False, tree, settings, root, scores, path_node, path_slot)
                node, slot = path_node[depth - 1], walked(np.int64(path_slot[depth - 1]))
                child = tree.child[node, slot]
                if child == PENDING:
                    met = come_upon(way, waiting - mine, waiting, node, slot)
                    patience -= 1
                    if patience < 0 or not discourage(tree, settings, way, met):
                        break  # evaluate what there is first
                    continue
                if child >= 0:
                    backup(plain, tree, settings, path_node, path_slot, depth, tree.value[child])
                    root.done[0] += 1
                    continue
                if tree.size[0] + mine >= len(tree.width):
                    break
                tree.child[node, slot] = PENDING
                tree.q[node, slot] = tree.value[node]  # neutral until it is known; the visit alone turns others away
                way.lengths[waiting] = depth
                way.owners[waiting] = b
                way.again[waiting] = 0
                if each > 1:
                    expect(tree, settings, way, waiting, 0, 1)
                root.done[0] += 1
                waiting += 1
                mine += 1
        count[0] = waiting

    return gather_kernel


@kernel
def scatter(trees, settings, each, way, told, mode, problems, numbers):
    """Attaches the evaluated leaves and backs their values up, in the order they were gathered.

    `way` holds the paths, lengths and owners of `gather`; `told` what became of each leaf: ``row[i]`` is the row of
    leaf i in `logits`, `value` and `legal` (terminal leaves have none: -1), ``link[i]`` a node of the same tree that
    stands for the same state, or -1; ``outcomes[i]``, if not 0, how many outcomes a move made for the first time has,
    with their probabilities in `chances` from ``first[i]`` on, and ``outcome[i]`` the one that the leaf is. Writes
    the number of each new node into `numbers` (-1 for a linked leaf).
    """
    waiting = len(told.reward)
    if each > 1:
        for i in range(waiting):
            forget(tree_of(trees, way.owners[i]), settings, way, i)
    for i in range(waiting):
        tree = tree_of(trees, way.owners[i])
        depth = way.lengths[i]
        node, slot = way.paths[0, i, depth - 1], walked(np.int64(way.paths[1, i, depth - 1]))
        link, ended, row = told.link[i], told.terminal[i], told.row[i]
        problems[i] = NOTHING_WRONG
        if told.outcomes[i] > 0:  # the move was made for the first time: it comes first, then what came of it
            node = attach_chance(tree, node, slot, told.chances[told.first[i] : told.first[i] + told.outcomes[i]])
            slot = told.outcome[i]
            way.paths[0, i, depth], way.paths[1, i, depth] = node, slot
            depth += 1
        if link >= 0:
            tree.child[node, slot] = link
            numbers[i] = -1
            judged = tree.value[link]
        else:
            judged = np.float32(0.0) if ended else told.value[row]
            new = attach(tree, node, slot, told.reward[i], judged, ended)
            if told.second[i]:
                tree.status[new] |= np.uint8(PLAYER)
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
