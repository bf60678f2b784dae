"""A whole tree in one forward pass: every token attends to its ancestors only, and its position is its depth.

The tokens of a tree are laid out in one row, the prompt first. In a causal transformer a token's state depends on the
tokens it attends to and on their positions alone, so with a mask of ancestors and depths for positions each state
equals the one its path would have on its own. What all prompts begin with (an instruction, examples) is read once, and
every row attends to its keys and values.

Letters: B trees of a batch, L tokens of the longest (prompt and nodes), P tokens of the shared beginning, n nodes,
D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from treegym.models.base import check_length, context_length
from treegym.models.local.network import Network
from treegym.models.local.vocabulary_head import read_vocabulary
from treegym.models.tree_scores import Branches, TreeScores, allowed_tokens

__all__ = [
    "Beginning",
    "Laid",
    "additive_masks",
    "ancestor_mask",
    "lay_out_trees",
    "read_scores",
    "score_trees_by_attention",
    "shared_beginning",
]

MASK_LIMIT = 2**24  # entries of one mask, 64 MB in float32
LOGITS_LIMIT = 2**24  # entries of one block of logits
SHARED = 16  # tokens that prompts begin with alike, from which on they are read once


def ancestor_mask(parents: np.ndarray) -> np.ndarray:
    """Returns ``[..., L, L] bool``: entry (i, j) is whether j is i or an ancestor of i; -1 is the parent of a root.

    All nodes climb together, one step at a time, so the cost is the depth of the deepest, not the number of nodes.
    """
    flat = parents.reshape(-1, parents.shape[-1])  # [B, L]
    mask = np.zeros((*flat.shape, flat.shape[1]), bool)
    row, node = np.nonzero(np.ones_like(flat, bool))
    above = node
    while len(row):
        mask[row, node, above] = True
        above = flat[row, above]
        climbing = above >= 0
        row, node, above = row[climbing], node[climbing], above[climbing]
    return mask.reshape(*parents.shape, parents.shape[-1])


def additive_masks(model: Network, visible: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor) -> Any:
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


def shared_beginning(trees: Sequence[Branches]) -> int:
    """Returns P: how many tokens all prompts begin with, their last tokens left out; 0 where it is not worth it."""
    if len(trees) < 2:
        return 0
    first = min(tree.prompt for tree in trees)  # in the order of tuples, what all share is what these two share
    last = max(tree.prompt for tree in trees)
    most = min(len(tree.prompt) for tree in trees) - 1
    same = next((place for place in range(most) if first[place] != last[place]), most)
    return same if same >= SHARED else 0


def _batches(model: Network, trees: Sequence[Branches], shared: int) -> Iterator[list[int]]:
    """Yields indices of trees of similar size, so many that neither tokens nor mask exceed their bounds."""
    lengths = [len(tree.prompt) - shared + tree.size for tree in trees]
    batch: list[int] = []
    for index in sorted(range(len(trees)), key=lambda i: (lengths[i], i)):
        rows, longest = len(batch) + 1, lengths[index]
        if batch and (rows * longest > model.batch_tokens or rows * longest * (longest + shared) > MASK_LIMIT):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _arranged(trees: Sequence[Branches], shared: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids ``[B, L]``, positions ``[B, L]`` and visibility ``[B, L, P + L]`` of trees laid out in rows."""
    longest = max(len(tree.prompt) - shared + tree.size for tree in trees)
    ids = np.zeros((len(trees), longest), np.int64)
    parents = np.full((len(trees), longest), -1, np.int64)  # padding is alone, and sees itself only
    for row, tree in enumerate(trees):
        start, stop = len(tree.prompt) - shared, len(tree.prompt) - shared + tree.size
        ids[row, :start] = tree.prompt[shared:]
        ids[row, start:stop] = tree.tokens
        parents[row, :start] = np.arange(-1, start - 1)
        parents[row, start:stop] = np.where(tree.parents < 0, start - 1, tree.parents + start)
    visible = ancestor_mask(parents)
    positions = shared + visible.sum(axis=2) - 1
    if shared:
        visible = np.concatenate([np.ones((*parents.shape, shared), bool), visible], axis=2)
    return ids, positions, visible


@dataclass(frozen=True)
class Beginning:
    """What all prompts begin with, read."""

    states: torch.Tensor  # [P, D]
    keys: list[torch.Tensor]  # per layer [1, H, P, head size]
    values: list[torch.Tensor]

    @property
    def size(self) -> int:
        return len(self.states)

    def cache(self, rows: int) -> Any:
        """Returns a cache of `rows` rows that have read it."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        return cache


def _read_beginning(model: Network, tokens: Sequence[int]) -> Beginning:
    from transformers import DynamicCache

    cache = DynamicCache()
    states = model.hidden(torch.tensor([tokens], device=model.device), cache=cache)
    return Beginning(states[0], [layer.keys for layer in cache.layers], [layer.values for layer in cache.layers])


@dataclass(frozen=True)
class Laid:
    """Trees laid out in the rows of one batch."""

    indices: list[int]  # which trees
    ids: torch.Tensor  # [B, L]
    positions: torch.Tensor  # [B, L]
    visible: torch.Tensor  # [B, L, P + L]
    beginning: Beginning | None  # what comes before each row

    @property
    def shared(self) -> int:
        return 0 if self.beginning is None else self.beginning.size

    def read(self, model: Network, *, keep: bool = False) -> tuple[torch.Tensor, Any]:
        """Returns the last hidden state of every token ``[B, L, D]``, and, to be kept, all keys and values."""
        from transformers import DynamicCache

        keys, cache = self.positions, DynamicCache() if keep else None
        if self.beginning is not None:
            before = torch.arange(self.shared, device=self.ids.device).expand(len(self.ids), -1)
            keys, cache = torch.cat([before, keys], dim=1), self.beginning.cache(len(self.ids))
        masks = additive_masks(model, self.visible, self.positions, keys)
        return model.hidden(self.ids, positions=self.positions, mask=masks, cache=cache), cache


def lay_out_trees(model: Network, trees: Sequence[Branches]) -> Iterator[Laid]:
    """Yields batches of trees of similar size, ready to be read."""
    shared = shared_beginning(trees)
    beginning = _read_beginning(model, trees[0].prompt[:shared]) if shared else None
    for batch in _batches(model, trees, shared):
        arranged = _arranged([trees[index] for index in batch], shared)
        ids, positions, visible = (torch.from_numpy(array).to(model.device) for array in arranged)
        check_length(int(positions.max()) + 1, name=model.name, limit=context_length(model))
        yield Laid(batch, ids, positions, visible, beginning)


@torch.inference_mode()
def score_trees_by_attention(
    model: Network, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
) -> list[TreeScores]:
    """Scores trees, each in one forward pass; see `treegym.models.tree_scores.score_trees`."""
    results: list[TreeScores | None] = [None] * len(trees)
    for laid in lay_out_trees(model, trees):
        states, _ = laid.read(model)  # [B, L, D]
        chosen = [trees[index] for index in laid.indices]
        sizes = [tree.size + 1 for tree in chosen]  # the last token of the prompt predicts the first ones
        rows = np.repeat(np.arange(len(chosen)), sizes)
        columns = np.concatenate(
            [len(t.prompt) - laid.shared - 1 + np.arange(s) for t, s in zip(chosen, sizes, strict=True)]
        )
        flat = states[torch.from_numpy(rows).to(model.device), torch.from_numpy(columns).to(model.device)]  # [S, D]
        found = read_scores(model, chosen, flat, best=best, worst=worst, hidden=hidden)
        for index, scores in zip(laid.indices, found, strict=True):
            results[index] = scores
    return [result for result in results if result is not None]


def read_scores(
    model: Network, trees: Sequence[Branches], flat: torch.Tensor, *, best: int, worst: int, hidden: bool
) -> list[TreeScores]:
    """Reads the scores of trees off the states of their prompts' last tokens and nodes, in turn ``[S, D]``."""
    sizes = [tree.size + 1 for tree in trees]
    starts = np.cumsum([0, *sizes[:-1]])
    owners = np.concatenate([start + tree.parents + 1 for start, tree in zip(starts, trees, strict=True)])  # [n]
    order = np.argsort(owners, kind="stable")  # so that the nodes a block predicts are together
    tokens = np.concatenate([tree.tokens for tree in trees]).astype(np.int64)
    allowed = allowed_tokens(model)
    read = _read_in_blocks if model.reads_blocks else _read_whole
    logp, found = read(model, flat, owners, order, tokens, allowed, best, worst)
    vectors = flat.float().cpu().numpy() if hidden else np.zeros((len(flat), 0), np.float32)
    per_tree = zip(*(np.split(array, starts[1:]) for array in (*found, vectors)), strict=True)
    nodes = np.split(logp, np.cumsum([tree.size for tree in trees])[:-1])
    return [TreeScores(scores, *arrays) for scores, arrays in zip(nodes, per_tree, strict=True)]


Found = tuple[np.ndarray, list[np.ndarray]]  # logp [n]; best ids, best logp, worst ids, worst logp, each [S, k]


def _read_in_blocks(
    model: Network, flat: torch.Tensor, owners: np.ndarray, order: np.ndarray, tokens: np.ndarray,
    allowed: np.ndarray, best: int, worst: int,
) -> Found:  # fmt: skip
    """Reads a large vocabulary block by block (see `treegym.models.local.vocabulary_head`)."""
    said = read_vocabulary(
        model, flat, rows=owners[order], tokens=tokens[order], best=best, worst=worst, allowed=allowed
    )
    logp = np.empty(len(tokens), np.float32)
    logp[order] = said.singles
    return logp, [said.best_ids, said.best_logp, said.worst_ids, said.worst_logp]


def _read_whole(
    model: Network, flat: torch.Tensor, owners: np.ndarray, order: np.ndarray, tokens: np.ndarray,
    allowed: np.ndarray, best: int, worst: int,
) -> Found:  # fmt: skip
    """Reads whole rows of a small vocabulary."""
    mask = torch.from_numpy(allowed).to(model.device)
    logp = np.empty(len(tokens), np.float32)
    parts: list[list[np.ndarray]] = []
    block = max(1, LOGITS_LIMIT // len(allowed))
    best, worst = min(best, int(allowed.sum())), min(worst, int(allowed.sum()))
    for begin in range(0, len(flat), block):
        logprobs = torch.log_softmax(model.logits(flat[begin : begin + block]), dim=-1)  # [b, V]
        low, high = np.searchsorted(owners[order], [begin, begin + block])
        mine = order[low:high]
        picked = logprobs[torch.from_numpy(owners[mine] - begin), torch.from_numpy(tokens[mine])]
        logp[mine] = picked.cpu().numpy()
        tops = logprobs.masked_fill(~mask, -torch.inf).topk(best, dim=-1) if best else None
        lows = logprobs.masked_fill(~mask, torch.inf).topk(worst, dim=-1, largest=False) if worst else None
        parts.append([*_pair(tops, len(logprobs)), *_pair(lows, len(logprobs))])
    return logp, [np.concatenate(column) for column in zip(*parts, strict=True)]


def _pair(ranked: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids and log-probabilities of a top-k result, or two empty tables."""
    if ranked is None:
        return np.zeros((rows, 0), np.int32), np.zeros((rows, 0), np.float32)
    return ranked.indices.to(torch.int32).cpu().numpy(), ranked.values.cpu().numpy()
