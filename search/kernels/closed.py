"""Whole searches inside one kernel, on a tree that is known as flat arrays."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from treegym.search.kernels.numeric import finite, inlined, kernel, unusable
from treegym.search.kernels.summary import perturb_one, summarise_one
from treegym.search.kernels.walk import attach, backup, descend, finish_priors

__all__ = ["check_structure", "search_roots"]


@kernel
def check_structure(first_child, child_count, terminal):  # type: ignore[no-untyped-def]
    """Returns the first node whose children lie outside the arrays, or -1; and the largest number of children."""
    size = len(first_child)
    widest = np.int64(0)
    for node in range(size):
        count = np.int64(child_count[node])
        if terminal[node] or count == 0:
            continue
        first = np.int64(first_child[node])
        if count < 0 or first < 0 or first + count > size:
            return node, widest
        widest = max(widest, count)
    return -1, widest


@inlined
def _open(tree, world, flat, new, raw):  # type: ignore[no-untyped-def]
    """Fills the slots of node `new`, which stands for `flat`; returns 0 or what is wrong with the priors."""
    first = np.int64(world.first_child[flat])
    width = np.int64(world.child_count[flat])
    if width == 0:
        tree.status[new] = np.uint8(3)  # a frontier node: nothing to choose, worth what the evaluator says
        return 0
    high = np.float32(-np.inf)
    prior, logits = tree.prior[new], world.prior_logits[first : first + width]
    wrong = 0
    if new == 0:  # slots are actions here, and only the root's are looked up
        for k in range(width):
            tree.action[0, k] = k
    for k in range(width):
        logit = logits[k]
        wrong += unusable(logit)
        prior[k] = logit
        high = max(high, logit)
    if wrong > 0:
        return 2
    if high == np.float32(-np.inf):
        return 3
    finish_priors(tree, new, width, high, raw)
    return 0


@functools.cache
def search_roots(rule: int, plain: bool) -> Any:
    """Returns the kernel for a rule that searches from every root in turn, in one scratch tree [N, W].

    Results go into `out`. ``where[n]`` is the world's node that tree node n stands for. ``problems[b]`` is 0, or the
    world's node + 1 whose priors or value cannot be used.
    """

    @kernel
    def search_roots_kernel(  # type: ignore[no-untyped-def]
        tree,
        root,
        world,
        where,
        scores,
        path_node,
        path_slot,
        roots,
        streams,
        settings,
        simulations,
        noise,
        out,
        problems,
    ):
        for b in range(len(roots)):
            flat = np.int64(roots[b])
            tree.size[0] = 0
            root.stream[0] = streams[b]
            new = attach(tree, -1, 0, np.float32(0.0), world.value[flat], False)
            where[new] = flat
            problems[b] = 0
            if _open(tree, world, flat, new, rule == 3) != 0 or not finite(world.value[flat]):
                problems[b] = flat + 1
                continue
            perturb_one(
                tree, root, settings.seed, noise.share, noise.gumbel, noise.gammas[min(b, len(noise.gammas) - 1)]
            )
            evaluations = 0
            while root.done[0] < simulations and not tree.status[0] & 2:
                depth = descend(rule, plain, tree, settings, root, scores, path_node, path_slot)
                node, slot = path_node[depth - 1], path_slot[depth - 1]
                child = tree.child[node, slot]
                if child < 0:
                    flat = np.int64(world.first_child[where[node]]) + slot
                    ends = world.terminal[flat]
                    child = attach(tree, node, slot, world.reward[flat], world.value[flat], ends)
                    where[child] = flat
                    if not ends:
                        evaluations += 1
                        if _open(tree, world, flat, child, rule == 3) != 0 or not finite(world.value[flat]):
                            problems[b] = flat + 1
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
