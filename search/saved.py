"""What a saved search must hold before a kernel follows it: kernels check no index and stop at no circle.

Letters: B roots, N nodes in use, W slots.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from treegym.search.checks import positive
from treegym.search.kernels.numeric import LARGEST
from treegym.search.kernels.walk import Root
from treegym.search.settings import Options
from treegym.search.tree import CHANCE, EMPTY, PLAYER, SOLVED, TERMINAL, Nodes

__all__ = ["check_known", "check_room", "check_roots", "check_trees", "depths"]

MOST_VISITS = 2**22  # of a node or slot: tables by visits are made for so many, and counters have 32 bits
MOST_CARRIED = 2**22  # visits that a root came with
ONE = 1.001  # a probability may be rounded up
MOST_LEAVES = 2**12  # that wait together, where a search has fewer simulations


def check_room(capacity: int, num_simulations: int, options: Options) -> None:
    """Raises ValueError for settings under which arrays would be larger than a search needs."""
    positive("num_simulations", num_simulations)
    if positive("capacity", capacity) <= num_simulations:
        raise ValueError("its trees have less room than it has simulations")
    if options.leaves > max(MOST_LEAVES, num_simulations):
        raise ValueError(f"{options.leaves} of its leaves would wait together")


def check_trees(tree: Nodes, used: int, actions: int, *, raw: bool) -> None:
    """Raises ValueError if trees from outside hold an index, or a number, that a kernel must not follow.

    `raw` says that slots hold what the evaluator said instead of probabilities.
    """
    slots = np.arange(tree.prior.shape[2])
    width, sizes = tree.width[:, :used], tree.size[:, :, None]
    if not ((width >= 0) & (width <= tree.prior.shape[2])).all():
        raise ValueError("a node has more children than there is room for")
    there = np.arange(used) < tree.size  # [B, N]
    valid = (slots < width[:, :, None]) & there[:, :, None]  # [B, N, W]
    child, action = tree.child[:, :used], tree.action[:, :used]
    if (valid & ((child < EMPTY) | (child >= sizes))).any():
        raise ValueError("a child lies outside its tree")
    status = np.where(there, tree.status[:, :used], 0)
    chance = status & CHANCE > 0
    if chance[:, 0].any() or (valid & chance[:, :, None] & _below(chance, np.where(valid, child, EMPTY))).any():
        raise ValueError("a root or an outcome is a move")
    if (valid & ((action < 0) | ((action >= actions) & ~chance[:, :, None]))).any():
        raise ValueError("an action is out of range")
    visits, seen = np.where(valid, tree.visits[:, :used], 0), np.where(there, tree.seen[:, :used], 1)
    if visits.min(initial=0) < 0 or seen.min(initial=1) < 1:
        raise ValueError("a visit count is negative")
    if max(visits.max(initial=0), seen.max(initial=0)) > MOST_VISITS:
        raise ValueError("a visit count is beyond what a search can reach")
    if (status > TERMINAL | SOLVED | PLAYER | CHANCE).any() or (there & (width == 0) & (status & TERMINAL == 0)).any():
        raise ValueError("a node has no children and does not end")
    if not (width[:, 0] > 0).all():
        raise ValueError("a root has no children")
    for name in ("prior", "q", "value", "raw", "reward"):
        array = getattr(tree, name)[:, :used]
        array = np.where(there if array.ndim == 2 else valid, array, 0)
        if raw and name == "prior":  # what the evaluator said may be that a child is out of the question
            array = np.where(array == -np.inf, 0, array)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite somewhere")
        if name != "q" and not (np.abs(array) <= LARGEST).all():
            raise ValueError(f"{name} is beyond {LARGEST:g} somewhere")
    prior = tree.prior[:, :used]
    if not raw and (valid & ((prior <= 0) | (prior > ONE))).any():
        raise ValueError("a prior is not a probability")
    depths(tree, used)


def _below(marked: np.ndarray, child: np.ndarray) -> np.ndarray:
    """Returns which slots, bool [B, N, W], lead to a marked node."""
    there = np.take_along_axis(marked, np.maximum(child, 0).reshape(len(child), -1), 1)
    return there.reshape(child.shape) & (child >= 0)


def depths(tree: Nodes, used: int) -> np.ndarray:
    """Returns how deep below its root each node lies, int32 [B, N], -1 where no way leads.

    Raises ValueError where ways of different lengths lead to a node: a circle is such a way.
    """
    slots = np.arange(tree.prior.shape[2])
    there = (np.arange(used) < tree.size)[:, :, None] & (slots < tree.width[:, :used, None])
    child = np.where(there, tree.child[:, :used], EMPTY)
    found = np.full(child.shape[:2], -1, np.int32)
    found[:, 0] = 0
    root, node = np.nonzero(found == 0)
    for depth in range(1, used + 1):
        below = child[root, node]  # [nodes of this depth, W]
        root, below = np.repeat(root, below.shape[1])[below.reshape(-1) >= 0], below[below >= 0]
        if not len(root):
            break
        if ((found[root, below] != -1) & (found[root, below] != depth)).any():
            raise ValueError("its trees lead in a circle")
        found[root, below] = depth
        root, node = np.nonzero(found == depth)
    return found


def check_roots(trees: Nodes, roots: Root, num_simulations: int, arrays: Mapping[str, np.ndarray]) -> int:
    """Returns how many visits a root came with at most; raises ValueError for counters that no search has."""
    size = len(trees.size)
    for name in ("budget", "evaluations", "root_ids"):
        wanted = np.int32 if name == "budget" else np.int64
        if arrays[name].shape != (size,) or arrays[name].dtype != wanted:
            raise ValueError(f"its array {name} has shape {arrays[name].shape} of {arrays[name].dtype}")
    done, budget = roots.done[:, 0], arrays["budget"]
    if done.min() < 0 or done.max() > num_simulations or budget.min() < 0 or budget.max() > num_simulations:
        raise ValueError("it has done more simulations than it may")
    valid = np.arange(roots.before.shape[1]) < trees.width[:, :1]
    before = np.where(valid, roots.before, 0)
    if (before < 0).any() or (before > np.where(valid, trees.visits[:, 0], 0)).any():
        raise ValueError("a root came with more visits than it has")
    if not np.isfinite(np.where(valid, roots.noisy, 0)).all():
        raise ValueError("the noise at a root is not finite")
    carried = int(roots.before.sum(1, dtype=np.int64).max(initial=0))
    if not 0 <= carried <= MOST_CARRIED:
        raise ValueError(f"a root came with {carried} visits, more than can be taken up")
    return carried


def check_known(known: Mapping[tuple[int, int, object], int], trees: Nodes, used: int) -> None:
    """Raises ValueError where the name of a state leads to a node that is not there, or lies at another depth."""
    depth = depths(trees, used)
    for (root, deep, _), node in known.items():
        if not (0 <= root < len(depth) and 0 <= node < used and depth[root, node] == deep):
            raise ValueError("a state is known by a node that is not where it should be")
