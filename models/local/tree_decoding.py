"""Many continuations of nodes of trees, written in step; the keys and values of a tree are kept once.

A batch has a row per tree. Before it come the tree's prompt and nodes; each step adds a column per continuation, which
sees its node's path and what it wrote itself. So a step moves the memory of the trees, not that of all their paths.

Letters: B trees, R continuations, C columns so far, L continuations of the tree with the most, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch

from treegym.models.local.network import Network
from treegym.models.local.tree_attention import additive_masks

__all__ = ["TreeDecoding"]

EMPTY_ROWS = 0.25  # share of trees without a continuation from which on they are dropped


class TreeDecoding:
    """Continuations in the middle of being written, those of a tree side by side."""

    def __init__(
        self,
        model: Network,
        cache: Any,
        *,
        columns: torch.Tensor,
        rows: torch.Tensor,
        visible: torch.Tensor,
        positions: torch.Tensor,
    ) -> None:
        """Begins before the first token of each continuation.

        Args:
            model: the model that writes.
            cache: keys and values of the trees.
            columns: positions of what the cache holds ``[B, C]``.
            rows: the tree of each continuation ``[R]``, rising.
            visible: which columns it sees ``[R, C] bool``.
            positions: of the last token before it ``[R]``.
        """
        self.model, self._cache = model, cache
        self._columns, self._rows, self._visible = columns, rows, visible
        self.positions = positions

    def keep(self, places: torch.Tensor) -> None:
        """Keeps some continuations, in order, and drops the others; trees without any are dropped when there are many.

        What was dropped leaves its columns behind, which nobody sees.
        """
        self._rows, self._visible, self.positions = self._rows[places], self._visible[places], self.positions[places]
        used, renumbered = torch.unique(self._rows, return_inverse=True)
        if len(used) <= (1 - EMPTY_ROWS) * len(self._columns):
            self._cache.batch_select_indices(used)
            self._columns, self._rows = self._columns[used], renumbered

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Reads one more token ``[R]`` of each continuation and returns its state ``[R, D]``."""
        device = self._rows.device
        trees, columns = self._columns.shape
        counts = torch.bincount(self._rows, minlength=trees)
        slots = torch.arange(len(self._rows), device=device) - (counts.cumsum(0) - counts)[self._rows]
        longest = int(counts.max())
        self.positions = self.positions + 1
        ids = torch.zeros((trees, longest), dtype=torch.long, device=device)
        ids[self._rows, slots] = tokens.to(device)
        positions = torch.zeros_like(ids)
        positions[self._rows, slots] = self.positions
        visible = torch.zeros((trees, longest, columns + longest), dtype=torch.bool, device=device)
        visible[self._rows, slots, :columns] = self._visible
        each = torch.arange(longest, device=device)
        visible[:, each, columns + each] = True  # itself; padding sees nothing else
        self._columns = torch.cat([self._columns, positions], dim=1)
        masks = additive_masks(self.model, visible, positions, self._columns)
        states = self.model.hidden(ids, positions=positions, mask=masks, cache=self._cache)
        self._visible = visible[self._rows, slots]
        return states[self._rows, slots]
