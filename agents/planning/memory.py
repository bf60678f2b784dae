"""What primary and teachers thought along the way to a node of a token tree: evidence that no observation repeats.

An observation shows opinions of the next step only, so a critic that reads nothing else cannot tell a good end from a
bad one once the tokens that decided it are behind. Nothing here knows a verdict. Letters: B nodes, M models.
"""

from __future__ import annotations

import numpy as np

from treegym.tree.token_tree import TokenTree

__all__ = ["memory_width", "path_memory"]

FLOOR = -20.0  # what a model without an opinion is taken to say, as in observations
SCALE = np.float32(0.1)  # sums of log-probabilities run into the tens


def memory_width(tree: TokenTree) -> int:
    """Returns 2M: the primary and the teachers, twice."""
    return 2 * (1 + tree.teacher_logp.shape[1])


def path_memory(tree: TokenTree, nodes: np.ndarray) -> np.ndarray:
    """Returns the sum and the minimum of every model's log-probabilities on the path to each node ``[B, 2M] float32``.

    It is read off the tree anew each time, so it holds for a tree that grows.
    """
    total = np.zeros((len(nodes), memory_width(tree) // 2), np.float32)
    least = np.zeros_like(total)
    where, rows = np.asarray(nodes, np.int64), np.arange(len(nodes))
    while True:
        inside = tree.parent[where] >= 0  # entering a root is not a step
        where, rows = where[inside], rows[inside]
        if not len(where):
            return SCALE * np.concatenate([total, least], axis=1)
        step = np.concatenate([tree.prior[where][:, None], tree.teacher_logp[where].astype(np.float32)], axis=1)
        step = np.nan_to_num(step, nan=FLOOR).clip(FLOOR, 0.0)
        total[rows] += step
        least[rows] = np.minimum(least[rows], step)
        where = tree.parent[where].astype(np.int64)
