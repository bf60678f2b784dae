"""A round of a search in two calls: for worlds kept in arrays, whose evaluators take microseconds."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from treegym.search.kernels import batch
from treegym.search.kernels.numeric import finite, kernel
from treegym.search.kernels.walk import walked

__all__ = ["SOUND", "ask", "tell"]

SOUND = -1  # no row has a reward or value that cannot be used


@functools.cache
def ask(rule: int, plain: bool) -> Any:
    """Returns the kernel for a rule that gathers a leaf per root and names what to step, see `batch.gather`.

    Writes into `count` [2] how many leaves there are and the longest way to one, into `parents` [B] and `actions` [B]
    what `Planner.ask` tells of them.
    """
    gather = batch.gather(rule, plain)

    @kernel
    def ask_kernel(trees, roots, settings, budget, scores, way, count, parents, actions):
        gather(trees, roots, settings, budget, 1, scores, way, count)
        capacity, longest = trees.width.shape[1], 0
        for i in range(count[0]):
            owner, last = way.owners[i], way.lengths[i] - 1
            node = way.paths[0, i, last]
            parents[i] = np.int64(owner) * capacity + node
            actions[i] = trees.action[owner, node, walked(np.int64(way.paths[1, i, last]))]
            longest = max(longest, way.lengths[i])
        count[1] = longest

    return ask_kernel


@kernel
def tell(trees, settings, way, told, mode, problems, numbers, evaluations, wrong):
    """Checks the numbers of a round, attaches its leaves and names them as `Planner.tell` does.

    Writes into `wrong` [3] the first row whose reward cannot be used, the first whose value cannot (`SOUND` for none;
    else the trees stay as they were), and how many rows have a problem.
    """
    wrong[0], wrong[1], wrong[2] = SOUND, SOUND, 0
    for i in range(len(told.reward) - 1, -1, -1):
        if not finite(told.reward[i]):
            wrong[0] = i
    for i in range(len(told.value) - 1, -1, -1):
        if not finite(told.value[i]):
            wrong[1] = i
    if wrong[0] != SOUND or wrong[1] != SOUND:
        return
    batch.scatter(trees, settings, 1, way, told, mode, problems, numbers)
    capacity = trees.width.shape[1]
    for i in range(len(told.reward)):
        owner = way.owners[i]
        numbers[i] += np.int64(owner) * capacity
        evaluations[owner] += told.row[i] >= 0
        wrong[2] += problems[i] != 0
