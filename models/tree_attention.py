"""A whole tree in one forward pass: every token attends to its ancestors only, and its position is its depth.

The tokens of a tree stand in one row, the prompt first. In a causal transformer a token's state depends on the tokens
it attends to and on their positions alone, so with a mask of ancestors and depths for positions each state equals the
one its path would have on its own.

Letters: B trees of a batch, L tokens of the longest (prompt and nodes), n nodes, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from treegym.models.transformers_model import TransformersModel
from treegym.models.tree_scores import Branches, TreeScores, allowed_tokens

__all__ = ["additive_masks", "ancestor_mask", "score_trees_by_attention"]

MASK_LIMIT = 2**24  # entries of one mask, 64 MB in float32
LOGITS_LIMIT = 2**24  # entries of one block of logits


def ancestor_mask(parents: np.ndarray) -> np.ndarray:
    """Returns ``[L, L] bool``: entry (i, j) is whether j is i or an ancestor of i. Parents come before children."""
    mask = np.eye(len(parents), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return mask


def additive_masks(model: TransformersModel, visible: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor) -> Any:
    """Turns visibility into what the layers take: one additive mask, or one per kind of layer.

    Args:
        model: the model, for its dtype and its sliding window.
        visible: ``[B, Q, K] bool``, which keys each query may see.
        positions: ``[B, Q]`` positions of the queries.
        keys: ``[B, K]`` positions of the keys.
    """
    full = _additive(visible, model.dtype)
    window = getattr(model.config, "sliding_window", None)
    if not window or int(positions.max()) < window:
        return full
    near = visible & (positions[:, :, None] - keys[:, None, :] < window)
    sliding = _additive(near, model.dtype)
    kinds = set(getattr(model.config, "layer_types", None) or ["sliding_attention"])
    if len(kinds) == 1:
        return sliding if kinds == {"sliding_attention"} else full
    return {"full_attention": full, "sliding_attention": sliding}


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]  # [B, 1, Q, K]


def _batches(model: TransformersModel, trees: Sequence[Branches]) -> Iterator[list[int]]:
    """Yields indices of trees of similar size, so many that neither tokens nor mask exceed their bounds."""
    lengths = [len(tree.prompt) + tree.size for tree in trees]
    batch: list[int] = []
    for index in sorted(range(len(trees)), key=lambda i: (lengths[i], i)):
        rows, longest = len(batch) + 1, lengths[index]
        if batch and (rows * longest > model.batch_tokens or rows * longest * longest > MASK_LIMIT):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _arranged(trees: Sequence[Branches]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids ``[B, L]``, positions ``[B, L]`` and visibility ``[B, L, L]`` of trees laid out in rows."""
    longest = max(len(tree.prompt) + tree.size for tree in trees)
    ids = np.zeros((len(trees), longest), np.int64)
    positions = np.zeros((len(trees), longest), np.int64)
    visible = np.zeros((len(trees), longest, longest), bool)
    visible[:, np.arange(longest), np.arange(longest)] = True  # padding sees itself, so that no softmax is empty
    for row, tree in enumerate(trees):
        start, stop = len(tree.prompt), len(tree.prompt) + tree.size
        ids[row, :start] = tree.prompt
        ids[row, start:stop] = tree.tokens
        parents = np.concatenate(
            [np.arange(-1, start - 1), np.where(tree.parents < 0, start - 1, tree.parents + start)]
        )
        visible[row, :stop, :stop] = ancestor_mask(parents)
        positions[row, :stop] = visible[row, :stop, :stop].sum(axis=1) - 1
    return ids, positions, visible


@torch.inference_mode()
def score_trees_by_attention(
    model: TransformersModel, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
) -> list[TreeScores]:
    """Scores trees, each in one forward pass; see `treegym.models.tree_scores.score_trees`."""
    allowed = torch.from_numpy(allowed_tokens(model)).to(model.device)
    results: list[TreeScores | None] = [None] * len(trees)
    for batch in _batches(model, trees):
        chosen = [trees[index] for index in batch]
        ids, positions, visible = (torch.from_numpy(array).to(model.device) for array in _arranged(chosen))
        masks = additive_masks(model, visible, positions, positions)
        states = model.hidden(ids, positions=positions, mask=masks)  # [B, L, D]
        for row, index in enumerate(batch):
            tree = trees[index]
            start = len(tree.prompt) - 1  # the state that predicts the first tokens
            results[index] = _scores(
                model, tree, states[row, start : start + 1 + tree.size], allowed, best, worst, hidden
            )
    return [result for result in results if result is not None]


def _scores(
    model: TransformersModel,
    tree: Branches,
    states: torch.Tensor,
    allowed: torch.Tensor,
    best: int,
    worst: int,
    hidden: bool,
) -> TreeScores:
    """Reads one tree's scores off its states ``[n + 1, D]``, in blocks of bounded size."""
    count = int(allowed.sum())
    best, worst = min(best, count), min(worst, count)
    logp = np.empty(tree.size, np.float32)
    owner = tree.parents + 1  # [n] the state that predicts each node
    parts: list[tuple[np.ndarray, ...]] = []
    block = max(1, LOGITS_LIMIT // len(allowed))
    for begin in range(0, len(states), block):
        logprobs = torch.log_softmax(model.logits(states[begin : begin + block]), dim=-1)  # [b, V]
        mine = np.flatnonzero((owner >= begin) & (owner < begin + block))
        picked = logprobs[torch.from_numpy(owner[mine] - begin), torch.from_numpy(tree.tokens[mine].astype(np.int64))]
        logp[mine] = picked.cpu().numpy()
        top = logprobs.masked_fill(~allowed, -torch.inf).topk(best, dim=-1)
        low = logprobs.masked_fill(~allowed, torch.inf).topk(worst, dim=-1, largest=False)
        parts.append(tuple(t.cpu().numpy() for t in (top.indices, top.values, low.indices, low.values)))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return TreeScores(
        logp=logp,
        best_ids=columns[0].astype(np.int32),
        best_logp=columns[1],
        worst_ids=columns[2].astype(np.int32),
        worst_logp=columns[3],
        hidden=states.float().cpu().numpy() if hidden else np.zeros((tree.size + 1, 0), np.float32),
    )
