"""Nodes that were added to trees after a model had read them: laid out so that only they are read.

A row holds a tree's new nodes; before them come, as keys and values from memory, what all prompts begin with, the rest
of the tree's prompt, and its known nodes.

Letters: B trees of a batch, P tokens of the shared beginning, K prompt tokens and known nodes, L new nodes of the tree
with the most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from treegym.models.base import check_length, context_length
from treegym.models.local.network import Network
from treegym.models.local.tree_attention import MASK_LIMIT, ancestor_mask
from treegym.models.tree_scores import Branches

__all__ = ["NewNodes", "lay_out_new_nodes"]


@dataclass(frozen=True)
class NewNodes:
    """New nodes of some trees in the rows of one batch."""

    indices: list[int]  # which trees
    known: list[np.ndarray]  # their known nodes, rising
    new: list[np.ndarray]  # their new nodes, rising
    ids: torch.Tensor  # [B, L]
    positions: torch.Tensor  # [B, L]
    key_positions: torch.Tensor  # [B, P + K + L]
    visible: torch.Tensor  # [B, L, P + K + L]


def lay_out_new_nodes(
    model: Network, trees: Sequence[Branches], nodes: Sequence[np.ndarray], shared: int
) -> Iterator[NewNodes]:
    """Yields batches of trees that have new nodes; `nodes` holds -1 for each of those."""
    batch: list[int] = []
    for index in sorted(range(len(trees)), key=lambda i: (len(trees[i].prompt) + trees[i].size, i)):
        if (nodes[index] >= 0).all():
            continue
        width = len(trees[index].prompt) + trees[index].size
        rows = len(batch) + 1
        if batch and (rows * width > model.batch_tokens or rows * width * width > MASK_LIMIT):
            yield _laid_out(model, trees, nodes, shared, batch)
            batch = []
        batch.append(index)
    if batch:
        yield _laid_out(model, trees, nodes, shared, batch)


def _laid_out(
    model: Network, trees: Sequence[Branches], nodes: Sequence[np.ndarray], shared: int, batch: list[int]
) -> NewNodes:
    known = [np.flatnonzero(nodes[index] >= 0) for index in batch]
    new = [np.flatnonzero(nodes[index] < 0) for index in batch]
    own = [len(trees[index].prompt) - shared for index in batch]  # tokens of the prompt that are in the row
    first = max(prompt + len(some) for prompt, some in zip(own, known, strict=True))  # column of the new nodes: K
    longest = max(map(len, new))
    ids = np.zeros((len(batch), longest), np.int64)
    parents = np.full((len(batch), first + longest), -1, np.int64)  # padding is alone, and sees itself only
    for row, index in enumerate(batch):
        tree, prompt = trees[index], own[row]
        column = np.empty(tree.size, np.int64)
        column[known[row]] = prompt + np.arange(len(known[row]))
        column[new[row]] = first + np.arange(len(new[row]))
        parents[row, :prompt] = np.arange(-1, prompt - 1)
        parents[row, column] = np.where(tree.parents < 0, prompt - 1, column[tree.parents])
        ids[row, : len(new[row])] = tree.tokens[new[row]]
    below = ancestor_mask(parents)  # [B, K + L, K + L]
    positions = shared + below.sum(axis=2) - 1
    check_length(int(positions.max()) + 1, name=model.name, limit=context_length(model))
    visible = np.concatenate([np.ones((len(batch), longest, shared), bool), below[:, first:]], axis=2)
    keys = np.concatenate([np.tile(np.arange(shared), (len(batch), 1)), positions], axis=1)
    on = [torch.from_numpy(array).to(model.device) for array in (ids, positions[:, first:], keys, visible)]
    return NewNodes(batch, known, new, *on)
