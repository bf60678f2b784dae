"""Whole searches inside one kernel, root by root in one scratch tree that stays in the processor's cache."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from treegym.search.kernels.numeric import kernel
from treegym.search.kernels.summary import perturb_one, summarise_one
from treegym.search.kernels.walk import RAW, backup, descend
from treegym.search.kernels.worlds import begin, grow

__all__ = ["search_roots"]


@functools.cache
def search_roots(rule: int, plain: bool) -> Any:
    """Returns the kernel for a rule that searches from every root in turn, in one scratch tree [N, W].

    ``world`` and ``starts`` say where (see `worlds`), ``desk`` holds the scratch arrays, results go into `out`.
    ``problems[b]`` is 0 or what is wrong below root b.
    """

    @kernel
    def search_roots_kernel(  # type: ignore[no-untyped-def]
        tree, root, desk, world, starts, streams, settings, simulations, noise, out, problems
    ):
        mode = RAW if rule == 3 else 0
        path_node, path_slot = desk.path_node, desk.path_slot
        for b in range(len(streams)):
            tree.size[0] = 0
            root.stream[0] = streams[b]
            problems[b] = begin(mode, tree, desk, world, starts, b)
            if problems[b] != 0:
                continue
            perturb_one(
                tree, root, settings.seed, noise.share, noise.gumbel, noise.gammas[min(b, len(noise.gammas) - 1)]
            )
            evaluations = 0
            while root.done[0] < simulations and not tree.status[0] & 2:
                depth = descend(rule, plain, tree, settings, root, desk.scores, path_node, path_slot)
                node, slot = path_node[depth - 1], path_slot[depth - 1]
                child = np.int64(tree.child[node, slot])
                if child < 0:
                    child = np.int64(tree.size[0])
                    problem, cost = grow(mode, tree, desk, world, node, slot)
                    evaluations += cost
                    if problem != 0:
                        problems[b] = problem
                        break
                backup(plain, tree, settings, path_node, path_slot, depth, tree.value[child])
                root.done[0] += 1
            summarise_one(
                tree,
                root,
                settings,
                noise.temperature,
                desk.scores,
                out.action[b : b + 1],
                out.policy[b],
                out.visits[b],
                out.q[b],
                out.value[b : b + 1],
            )
            out.evaluations[b] = evaluations

    return search_roots_kernel
