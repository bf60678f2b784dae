"""Episodes read as trees: every beginning that texts share goes through the layers once, forward and backward.

The contexts of whole episodes are packed into trees of their exact token prefixes, in the order of a walk that goes
deep first. A token sees itself and what is above it (an ancestor mask by intervals), its position is its depth, and
each step's state is gathered from the node its context ends at. What is computed of the states (log-probabilities,
ratios, clipping, KL, entropy) is what it was, so loss and gradient are those of the episodes read one by one.

Letters: E episodes, L context length, M tokens of a tree, B trees of a batch, N steps, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from treegym.models.local.tree_attention import additive_masks

__all__ = ["ContextTree", "context_trees", "tree_states"]

TREE_TOKENS = (
    320  # of one tree: masks have their square, so a larger one is cut, and what its parts share is read again
)
BATCH_TOKENS = 4096  # of one pass, with padding

Layers = Callable[..., Any]


class ContextTree(NamedTuple):
    """Contexts that begin alike, every prefix once."""

    ids: np.ndarray  # [M] int64
    depth: np.ndarray  # [M] int64, the token's place in its context
    stop: np.ndarray  # [M] int64, where the tokens below it end: node k is above q if k <= q < stop[k]
    rows: np.ndarray  # [E] int64, the contexts
    where: np.ndarray  # [E, L] int64, the node of each of their tokens; -1 beyond their end


class Shape(NamedTuple):
    """What masks are made for."""

    config: Any
    dtype: torch.dtype


def context_trees(contexts: np.ndarray, *, limit: int = TREE_TOKENS) -> Iterator[ContextTree]:
    """Yields the trees of contexts ``[E, L]``, padded with -1 on the right; those that share no token are apart."""
    lengths = (contexts >= 0).sum(axis=1)
    order = np.lexsort(contexts.T[::-1])  # by first token, then by second, ...: what begins alike meets
    ranked = contexts[order]
    same = np.cumprod((ranked[1:] == ranked[:-1]) & (ranked[1:] >= 0), axis=1).sum(axis=1)  # shared with the one before
    shared = np.concatenate([[0], same])
    start = total = 0
    for row in range(len(order) + 1):
        fresh = int(lengths[order[row]] - shared[row]) if row < len(order) else 0
        if row == len(order) or (row > start and (shared[row] == 0 or total + fresh > limit)):
            yield _tree(ranked[start:row], lengths[order[start:row]], shared[start:row], order[start:row])
            start, total = row, 0
            fresh = int(lengths[order[row]]) if row < len(order) else 0
        total += fresh


def _tree(ranked: np.ndarray, lengths: np.ndarray, shared: np.ndarray, rows: np.ndarray) -> ContextTree:
    """Returns one tree of contexts in rising order; the first is whole."""
    begins = np.where(np.arange(len(rows)) > 0, shared, 0)
    fresh = lengths - begins
    first = np.cumsum(fresh) - fresh  # of each context, its first node of its own
    where = np.full(ranked.shape, -1, np.int64)
    size = int(fresh.sum())
    ids, depth = np.empty(size, np.int64), np.empty(size, np.int64)
    stop = np.full(size, size, np.int64)
    for e, (length, begin, node) in enumerate(zip(lengths.tolist(), begins.tolist(), first.tolist(), strict=True)):
        if e:
            where[e, :begin] = where[e - 1, :begin]
            stop[where[e - 1, begin : lengths[e - 1]]] = node  # nothing more comes below these
        nodes = slice(node, node + length - begin)
        where[e, begin:length] = np.arange(nodes.start, nodes.stop)
        ids[nodes], depth[nodes] = ranked[e, begin:length], np.arange(begin, length)
    return ContextTree(ids, depth, stop, rows, where)


def tree_states(
    contexts: torch.Tensor,
    episode: np.ndarray,
    at: np.ndarray,
    *,
    layers: Layers,
    shape: Shape,
    limit: int = TREE_TOKENS,
) -> torch.Tensor:
    """Returns the states ``[N, D]`` at places of contexts, every shared beginning computed once.

    Args:
        contexts: ``[E, L]``, padded with -1 on the right.
        episode: ``[N]`` the context of each step.
        at: ``[N]`` where in it the step's own context ends.
        layers: reads ids, positions and a mask.
        shape: the model's configuration and the type of its states.
        limit: tokens of a tree.
    """
    device = contexts.device
    node_of = np.empty(contexts.shape, np.int64)  # of each token, its place among all states found
    states, offset = [], 0
    for batch in _batches(context_trees(contexts.cpu().numpy(), limit=limit)):
        width = max(len(tree.ids) for tree in batch)
        ids, depth = np.zeros((2, len(batch), width), np.int64)
        visible = np.zeros((len(batch), width, width), np.bool_)
        query, key = np.arange(width)[:, None], np.arange(width)[None]
        for b, tree in enumerate(batch):
            size = len(tree.ids)
            ids[b, :size], depth[b, :size] = tree.ids, tree.depth
            stop = np.append(tree.stop, np.arange(size + 1, width + 1))  # padding sees itself
            visible[b] = (key <= query) & (query < stop[None])
            node_of[tree.rows] = tree.where + offset + b * width
        places = torch.from_numpy(depth).to(device)
        masks = additive_masks(shape, torch.from_numpy(visible).to(device), places, places)  # type: ignore[arg-type]
        found = layers(
            input_ids=torch.from_numpy(ids).to(device), position_ids=places, attention_mask=masks, use_cache=False
        )
        states.append(found.last_hidden_state.flatten(0, 1))
        offset += len(batch) * width
    return torch.cat(states)[torch.from_numpy(node_of[episode, at]).to(device)]


def _batches(trees: Iterator[ContextTree]) -> Iterator[list[ContextTree]]:
    """Yields trees of like size together, at most `BATCH_TOKENS` with padding."""
    batch: list[ContextTree] = []
    for tree in sorted(trees, key=lambda tree: len(tree.ids)):
        if batch and len(tree.ids) * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(tree)
    if batch:
        yield batch
