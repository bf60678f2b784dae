"""Exploring starts: episodes that begin at an inner node of their root's tree, where play itself would hardly get.

On a deep tree with one way out, a learner that always starts at the root never sees a right answer; of the inner nodes
many lie close to an end. Letters: B lanes, N nodes.
"""

from __future__ import annotations

import numpy as np

from treegym.agents.play.native_worlds import LanesWorld
from treegym.agents.play.world import World
from treegym.envs.token_tree.world import TreeWorld

__all__ = ["InnerStarts"]


class InnerStarts:
    """The inner nodes of a closed token tree, root by root."""

    def __init__(self, world: World) -> None:
        tree = self.tree_of(world)
        assert tree is not None
        self.world = world
        self._depth, self._root_index = tree.tree.depth, tree.tables.root_index
        inner = np.flatnonzero(~(tree.tables.ends | tree.tables.cut_off | (tree.tables.child_count == 0)))
        order = np.argsort(self._root_index[inner], kind="stable")
        self._inner = inner[order]  # [n] nodes, those of one root side by side
        self._root = self._root_index[self._inner]  # [n] ascending

    @staticmethod
    def tree_of(world: World) -> TreeWorld | None:
        """Returns the closed token tree that is walked; elsewhere no inner nodes are known."""
        tree = world.tree_world if isinstance(world, LanesWorld) else None
        return tree if tree is not None and tree.grower is None else None

    @classmethod
    def known(cls, world: World) -> bool:
        return cls.tree_of(world) is not None

    def scatter(self, size: int, share: float, rng: np.random.Generator, *, group_size: int = 1) -> None:
        """Moves about `share` of the first `size` lanes to random inner nodes; lanes of one group go together."""
        state = self.world.state()
        groups = -(-size // group_size)
        moved = np.flatnonzero(rng.random(groups) < share)
        own = self._root_index[state["node"][moved * group_size]]
        first, last = np.searchsorted(self._root, own), np.searchsorted(self._root, own, side="right")
        node = self._inner[first + (rng.random(len(moved)) * (last - first)).astype(np.int64)]
        lanes = (moved[:, None] * group_size + np.arange(group_size)).ravel()
        node = np.repeat(node, group_size)[lanes < size]
        lanes = lanes[lanes < size]
        state["node"][lanes], state["steps"][lanes] = node, self._depth[node]
        self.world.set_state(state)
