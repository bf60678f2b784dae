"""What an agent sees of a token tree: one row of features per child, gathered once into a table.

Since children lie side by side in the arena, the observation of a node is one contiguous stretch of that table; a
step copies it and computes nothing. Nothing here looks at verdicts: they are for rewards, never for observations.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from treegym.envs.layout import ObservationLayout
from treegym.tree.columns import CONTEXT_SIZE
from treegym.tree.flags import END, PUNCTUATION
from treegym.tree.token_tree import TokenTree

__all__ = ["LOGP_FLOOR", "child_features", "fill_path_logp", "fill_root_index", "layout_of", "observation_bounds"]

LOGP_FLOOR = -20.0  # log-probabilities are clipped here; also stands for "no opinion"
WEIGHT_CEILING = 100.0


def layout_of(tree: TokenTree, num_children: int) -> ObservationLayout:
    """Returns the names of the columns of an observation of this tree."""
    state = ["depth", "budget_left", "path_logp"]
    state += [f"prompt:{i}" for i in range(CONTEXT_SIZE)] + [f"context:{i}" for i in range(CONTEXT_SIZE)]
    child = ["prior", *(f"teacher:{name}" for name in tree.teachers)]
    child += ["proposers", "similarity", "weight", "end", "punctuation"]
    return ObservationLayout(num_children, tuple(state), tuple(child))


def observation_bounds(layout: ObservationLayout) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest and highest value of every column ``[D] float32``."""
    low = {"depth": 0.0, "budget_left": 0.0, "path_logp": LOGP_FLOOR, "prior": LOGP_FLOOR, "similarity": -1.0}
    high = {"path_logp": 0.0, "prior": 0.0, "weight": WEIGHT_CEILING}

    def bounds(name: str) -> tuple[float, float]:
        if name.startswith("teacher:"):
            return LOGP_FLOOR, 0.0
        if name.startswith(("prompt:", "context:")):
            return -1.0, 1.0
        return low.get(name, 0.0), high.get(name, 1.0)

    names = [*layout.state, *layout.child * layout.num_children]
    pairs = np.array([bounds(name) for name in names], np.float32)
    return pairs[:, 0], pairs[:, 1]


def child_features(tree: TokenTree, nodes: slice, ends: np.ndarray) -> np.ndarray:
    """Returns the features of a stretch of nodes, each seen as a child ``[., F] float32``.

    Args:
        tree: the tree.
        nodes: which nodes; parents of these need not be among them.
        ends: ``[N] bool`` where episodes end.
    """
    count = nodes.stop - nodes.start
    teachers = tree.num_teachers
    table = np.empty((count, teachers + 6), np.float32)
    table[:, 0] = tree.prior[nodes]
    table[:, 1 : teachers + 1] = tree.teacher_logp[nodes]
    logps = table[:, : teachers + 1]
    np.nan_to_num(logps, copy=False, nan=LOGP_FLOOR)
    np.clip(logps, LOGP_FLOOR, 0.0, out=logps)
    table[:, teachers + 1] = np.bitwise_count(tree.proposers[nodes]) / np.float32(teachers + 1)
    table[:, teachers + 2] = np.clip(np.nan_to_num(tree.similarity[nodes]), -1.0, 1.0)
    parent = tree.parent[nodes]
    siblings = np.where(parent >= 0, tree.child_count[np.maximum(parent, 0)], 1).astype(np.float32)
    uniform = 1.0 / siblings
    weight = tree.weight[nodes] if tree.has("weight") else np.full(count, np.nan, np.float32)
    table[:, teachers + 3] = np.clip(np.where(np.isnan(weight), uniform, weight), 0.0, WEIGHT_CEILING)
    table[:, teachers + 4] = ends[nodes] | ((tree.flags[nodes] & END) != 0)
    table[:, teachers + 5] = (tree.flags[nodes] & PUNCTUATION) != 0
    return table


@numba.njit(cache=True)
def _accumulate(parent: Any, prior: Any, out: Any, start: Any) -> Any:
    for i in range(start, len(parent)):
        out[i] = out[parent[i]] + min(prior[i], np.float32(0.0)) if parent[i] >= 0 else 0.0


def fill_path_logp(tree: TokenTree, out: np.ndarray, start: int = 0) -> None:
    """Writes the primary's log-probability of the path to every node from `start` on into ``out [N] float32``."""
    _accumulate(tree.parent, tree.prior, out, start)


@numba.njit(cache=True)
def _spread_roots(parent: Any, out: Any, start: Any, next_root: Any) -> Any:
    for i in range(start, len(parent)):
        if parent[i] < 0:
            out[i] = next_root
            next_root += 1
        else:
            out[i] = out[parent[i]]


def fill_root_index(tree: TokenTree, out: np.ndarray, start: int = 0) -> None:
    """Writes the index of the root above every node from `start` on into ``out [N] int32``."""
    _spread_roots(tree.parent, out, start, int(np.searchsorted(tree.root_node, start)))
