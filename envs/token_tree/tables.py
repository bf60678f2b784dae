"""What stepping looks up: one row per node, extended where a live tree grows. Letters as in `world`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from treegym.envs.token_tree import transition
from treegym.rewards import RewardTable
from treegym.tree.pictures import FIRST_PICTURE_TOKEN
from treegym.tree.token_tree import TokenTree

__all__ = ["NodeTables", "Stretch", "TokenWindows"]


class Stretch(NamedTuple):
    """The nodes that a tree has gained, and those of the old ones that have children now."""

    fresh: slice
    nodes: np.ndarray  # [.] int64, the same as indices
    parents: np.ndarray  # [.] int64


class NodeTables:
    """Flat arrays with one row per node of a tree. Their memory doubles, so that growing costs what new nodes cost."""

    ends: np.ndarray  # [N] bool, where episodes end
    cut_off: np.ndarray  # [N] bool, where the budget does
    unjudged: np.ndarray  # [N] bool, ends that nobody has verified yet
    path_logp: np.ndarray  # [N] float32, the primary's log-probability of the path
    root_index: np.ndarray  # [N] int32
    features: np.ndarray  # [N, F] float32, each node as a child
    terms: np.ndarray  # [N, T] float32, raw reward terms
    cells: np.ndarray  # [N] what the kernels of `transition` read of a node

    def __init__(self, tree: TokenTree, *, width: int, terms: int) -> None:
        self.tree, self.width = tree, width
        self.size = 0
        self._kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
            "ends": (bool, ()),
            "cut_off": (bool, ()),
            "unjudged": (bool, ()),
            "path_logp": (np.float32, ()),
            "root_index": (np.int32, ()),
            "features": (np.float32, (width,)),
            "terms": (np.float32, (terms,)),
            "cells": (transition.CELL, ()),
        }
        self._whole: dict[str, np.ndarray] = {}  # [capacity, ...] what the attributes above are parts of

    def stretch(self) -> Stretch:
        """Returns what the tree has gained since the tables were last extended."""
        tree, old = self.tree, self.size
        parents = np.unique(tree.parent[old:]).astype(np.int64) if old else np.zeros(0, np.int64)
        return Stretch(slice(old, tree.size), np.arange(old, tree.size), parents[(parents >= 0) & (parents < old)])

    def extend(self) -> None:
        """Makes every table as long as the tree is now."""
        tree, old, size = self.tree, self.size, self.tree.size
        for name, (dtype, shape) in self._kinds.items():
            table = self._whole.get(name)
            if table is None or len(table) < size:
                capacity = size if table is None else max(size, 2 * len(table))
                grown = _on_lines((capacity, *shape), np.dtype(dtype))
                if table is not None:
                    grown[:old] = table[:old]
                table = self._whole[name] = grown
            setattr(self, name, table[:size])
        self.flat_features = self.features.reshape(-1)
        self.first_child, self.child_count, self.token = tree.first_child, tree.child_count, tree.token
        self.size = size

    def fill_cells(self, stretch: Stretch, root_node: np.ndarray, table: RewardTable) -> None:
        """Lays out what stepping needs of the new nodes, and of their parents, which have children now."""
        tree, cells, fresh = self.tree, self.cells, stretch.fresh
        for part in (fresh, stretch.parents):
            cells["first"][part], cells["count"][part] = tree.first_child[part], tree.child_count[part]
            cells["end"][part] = self.ends[part]
            cells["right"][part] = self.ends[part] & (tree.verdict[part] >= 0.5)
        cells["path_logp"][fresh] = self.path_logp[fresh]
        cells["root"][fresh] = root_node[self.root_index[fresh]]
        cells["root_index"][fresh] = self.root_index[fresh]
        cells["pays"][fresh], cells["failed"][fresh] = table.total[fresh], table.failed[fresh]
        if tree.has("context"):
            cells["context"][fresh] = np.maximum(tree.context[fresh], -127)  # -128 would leave the space


class TokenWindows:
    """What the view "tokens" adds to observations: the token ids before and after each node."""

    def __init__(self, tables: NodeTables, *, num_actions: int, max_tokens: int) -> None:
        tokens = [root.tokens for root in tables.tree.roots]
        self.tables, self.num_actions = tables, num_actions
        self._start = np.concatenate([[0], np.cumsum([len(t) for t in tokens])]).astype(np.int64)  # [R + 1]
        self._tokens = np.array([token for prompt in tokens for token in prompt], np.int32)
        self.length = int(np.diff(self._start).max(initial=0)) + max_tokens
        self.sees_pictures = bool((self._tokens >= FIRST_PICTURE_TOKEN).any())

    def around(self, nodes: np.ndarray) -> dict[str, np.ndarray]:
        """Returns ``context [B, L] int32`` and ``children [B, K] int32``; -1 pads."""
        tree, tables = self.tables.tree, self.tables
        context = np.empty((len(nodes), self.length), np.int32)
        children = np.empty((len(nodes), self.num_actions), np.int32)
        transition.observe_tokens(
            nodes, tables.first_child, tables.child_count, tree.parent, tree.token, tree.depth, tables.root_index,
            self._start, self._tokens, context, children,
        )  # fmt: skip
        return {"context": context, "children": children}


def _on_lines(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an array of zeros that starts on a cache line: a cell of 64 bytes is then one line, not parts of two."""
    size = math.prod(shape) * dtype.itemsize
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)
