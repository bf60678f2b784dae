"""Whole searches inside one kernel, the evaluator included: a compiled model is called through its address."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from treegym.search.kernels.numeric import finite, kernel
from treegym.search.kernels.summary import perturb_one, summarise_one
from treegym.search.kernels.walk import attach, backup, descend, fill_dense

__all__ = ["search_roots"]


@functools.cache
def search_roots(rule: int, plain: bool) -> Any:
    """Returns the kernel for a rule that searches from every root in turn, in one scratch tree [N, W].

    ``desk`` holds the scratch arrays; results go into `out`. ``problems[b]`` is 0 or the code of `fill_dense`, 4 for a
    value or reward that is not finite.
    """

    @kernel
    def search_roots_kernel(  # type: ignore[no-untyped-def]
        tree, root, desk, model, params, given, streams, settings, simulations, noise, out, problems
    ):
        mode = 2 if rule == 3 else 0
        states, logits, legal, told = desk.states, desk.logits, desk.legal, desk.told
        scores, path_node, path_slot = desk.scores, desk.path_node, desk.path_slot
        for b in range(len(given.value)):
            tree.size[0] = 0
            root.stream[0] = streams[b]
            for d in range(states.shape[1]):
                states[0, d] = given.states[b, d]
            new = attach(tree, -1, 0, np.float32(0.0), given.value[b], False)
            problems[b] = fill_dense(tree, new, given.logits[b], given.legal[b], mode)
            if problems[b] != 0:
                continue
            perturb_one(
                tree, root, settings.seed, noise.share, noise.gumbel, noise.gammas[min(b, len(noise.gammas) - 1)]
            )
            evaluations = 0
            while root.done[0] < simulations and not tree.status[0] & 2:
                depth = descend(rule, plain, tree, settings, root, scores, path_node, path_slot)
                node, slot = path_node[depth - 1], path_slot[depth - 1]
                child = np.int64(tree.child[node, slot])
                if child < 0:
                    child = np.int64(tree.size[0])
                    for a in range(len(legal)):
                        legal[a] = True
                    told[2] = np.float32(0.0)
                    model(params, states, np.int64(node), np.int64(tree.action[node, slot]), child, logits, legal, told)
                    ends = told[2] > np.float32(0.0)
                    if not (finite(told[0]) and (ends or finite(told[1]))):
                        problems[b] = 4
                        break
                    attach(tree, node, slot, told[0], told[1], ends)
                    if not ends:
                        evaluations += 1
                        problems[b] = fill_dense(tree, child, logits, legal, mode)
                        if problems[b] != 0:
                            break
                backup(plain, tree, settings, path_node, path_slot, depth, tree.value[child])
                root.done[0] += 1
            summarise_one(
                tree,
                root,
                settings,
                noise.temperature,
                scores,
                out.action[b : b + 1],
                out.policy[b],
                out.visits[b],
                out.q[b],
                out.value[b : b + 1],
            )
            out.evaluations[b] = evaluations

    return search_roots_kernel
