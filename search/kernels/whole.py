"""Whole searches inside one kernel, root by root in one scratch tree that stays in the processor's cache."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from treegym.search.kernels.batch import root_of, tree_of
from treegym.search.kernels.codes import MODE_PLAIN, MODE_RAW, NOTHING_WRONG, RULE_SIMILARITY
from treegym.search.kernels.numeric import kernel
from treegym.search.kernels.summary import perturb_one, summarise_one
from treegym.search.kernels.walk import Root, backup, descend, walked
from treegym.search.kernels.worlds import begin, grow
from treegym.search.tree import SOLVED, Nodes

__all__ = ["Desk", "search_roots"]


class Desk(NamedTuple):
    """Scratch arrays of one thread, for L searches at a time."""

    trees: Nodes
    roots: Root
    place: np.ndarray  # [L, N] or [L, N, D], what the nodes stand for, see `worlds`
    told: Any  # what a model writes its judgement into
    scores: np.ndarray  # [W] float32
    path_node: np.ndarray  # [L, N + 1] int32
    path_slot: np.ndarray  # [L, N + 1] int32


@functools.cache
def search_roots(rule: int, plain: bool, narrow: bool) -> Any:
    """Returns the kernel for a rule that searches from every root in turn; `plain` and `narrow` as in `descend`.

    ``world`` and ``starts`` say where (see `worlds`), results go into `out`. ``problems[b]`` is 0 or what is wrong
    below root b.
    """

    @kernel
    def search_roots_kernel(desk, world, starts, streams, settings, simulations, noise, out, problems):
        mode = MODE_RAW if rule == RULE_SIMILARITY else MODE_PLAIN
        tree, root, place = tree_of(desk.trees, 0), root_of(desk.roots, 0), desk.place[0]
        path_node, path_slot = desk.path_node[0], desk.path_slot[0]
        for b in range(len(streams)):
            tree.size[0] = 0
            root.stream[0] = streams[b]
            problems[b] = begin(mode, tree, place, desk.told, world, starts, b)
            if problems[b] != NOTHING_WRONG:
                continue
            gammas = noise.gammas[min(b, len(noise.gammas) - 1)]
            perturb_one(tree, root, settings.seed, noise.share, noise.gumbel, gammas)
            evaluations = 0
            while root.done[0] < simulations and not tree.status[0] & SOLVED:
                depth = descend(rule, plain, narrow, tree, settings, root, desk.scores, path_node, path_slot)
                node, slot = path_node[depth - 1], path_slot[depth - 1]
                if not plain:
                    slot = walked(slot)
                child = np.int64(tree.child[node, slot])
                if child < 0:
                    child = np.int64(tree.size[0])
                    problem, cost = grow(mode, tree, place, desk.told, world, node, slot)
                    evaluations += cost
                    if problem != NOTHING_WRONG:
                        problems[b] = problem
                        break
                backup(plain, tree, settings, path_node, path_slot, depth, tree.value[child])
                root.done[0] += 1
            summarise_one(tree, root, settings, noise.temperature, desk.scores, out, b)
            out.evaluations[b] = evaluations

    return search_roots_kernel
