"""Decoding a batch of contexts with a key/value cache; contexts that share beginnings are read once.

The beginnings are laid out as trees and read in one pass each (`tree_attention`); every context then gathers the keys
and values of its own path. Where little is shared, or the attention takes no tree masks, contexts are read one by one,
padded on the left.

Letters: B contexts, P longest context, L tokens of a tree of beginnings, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from treegym.models.base import TokenIds, context_length
from treegym.models.local.decoding import choose_tokens
from treegym.models.local.network import Network
from treegym.models.local.row_cache import RowCache
from treegym.models.local.tree_attention import additive_masks, ancestor_mask

__all__ = ["SHARING_PAYS", "decode", "last_states_shared", "read_shared", "shared_tokens"]

TREE_LIMIT = 512  # tokens of one tree of beginnings, unless contexts are long; masks grow with its square
SHARING_PAYS = 1.5  # tokens of all contexts over tokens of their tree, from which on the tree is worth its masks


def shared_tokens(contexts: Sequence[TokenIds]) -> int:
    """Returns how many tokens the tree of all contexts has; contexts are to be sorted."""
    total, previous = 0, tuple[int, ...]()
    for context in contexts:
        ids = tuple(context)
        same = 0
        for a, b in zip(previous, ids, strict=False):
            if a != b:
                break
            same += 1
        total += len(ids) - same
        previous = ids
    return total


@torch.inference_mode()
def read_shared(model: Network, contexts: Sequence[TokenIds]) -> RowCache:
    """Reads the tree of all contexts, then gathers each one's path."""
    from transformers import DynamicCache

    forest = _Forest(contexts)
    cache = DynamicCache()
    states = _read_forest(model, forest, cache)  # [trees * L, D]
    width = states.shape[0] // len(forest.tokens)
    paths = [np.array(path) + tree * width for tree, path in zip(forest.tree_of, forest.paths, strict=True)]
    flat = [[t.transpose(1, 2).flatten(0, 1) for t in (layer.keys, layer.values)] for layer in cache.layers]
    return RowCache.gathered(model, [(keys, values) for keys, values in flat], states, paths)


@torch.inference_mode()
def last_states_shared(model: Network, contexts: Sequence[TokenIds]) -> torch.Tensor:
    """Returns the hidden state of every context's last token ``[B, D]``, shared beginnings read once."""
    forest = _Forest(contexts)
    states = _read_forest(model, forest, None)
    width = states.shape[0] // len(forest.tokens)
    ends = [tree * width + path[-1] for tree, path in zip(forest.tree_of, forest.paths, strict=True)]
    return states[torch.tensor(ends, device=model.device)]


def _read_forest(model: Network, forest: _Forest, cache: Any) -> torch.Tensor:
    """Returns the states of all trees' tokens, one tree after the other, padded to the largest ``[trees * L, D]``."""
    longest = max(len(tokens) for tokens in forest.tokens)
    ids = np.zeros((len(forest.tokens), longest), np.int64)
    parents = np.full((len(forest.tokens), longest), -1, np.int64)  # padding is alone, and sees itself only
    for tree, (tokens, above) in enumerate(zip(forest.tokens, forest.parents, strict=True)):
        ids[tree, : len(tokens)], parents[tree, : len(tokens)] = tokens, above
    visible = ancestor_mask(parents)
    positions = visible.sum(axis=2) - 1
    on = [torch.from_numpy(array).to(model.device) for array in (ids, positions, visible)]
    masks = additive_masks(model, on[2], on[1], on[1])
    return model.hidden(on[0], positions=on[1], mask=masks, cache=cache).flatten(0, 1)


class _Forest:
    """The trees that sorted contexts form: a new one where little is shared with the last, or where it gets large."""

    def __init__(self, contexts: Sequence[TokenIds]) -> None:
        self.tokens: list[list[int]] = []
        self.parents: list[list[int]] = []
        self.tree_of: list[int] = []  # of every context
        self.paths: list[list[int]] = []  # of every context, places in its tree
        children: dict[tuple[int, int], int] = {}
        limit = max(TREE_LIMIT, 2 * max(len(context) for context in contexts))
        for context in contexts:
            path: list[int] = []
            for token in context:
                child = children.get((path[-1] if path else -1, int(token)))
                if child is None:
                    break
                path.append(child)
            fresh = len(context) - len(path)
            if not self.tokens or 2 * len(path) < len(context) or len(self.tokens[-1]) + fresh > limit:
                self.tokens.append([])
                self.parents.append([])
                children, path = {}, []
            for token in context[len(path) :]:
                above, place = path[-1] if path else -1, len(self.tokens[-1])
                children[above, int(token)] = place
                self.tokens[-1].append(int(token))
                self.parents[-1].append(above)
                path.append(place)
            self.tree_of.append(len(self.tokens) - 1)
            self.paths.append(path)


@torch.inference_mode()
def decode(
    rows: RowCache,
    *,
    max_new_tokens: int,
    temperature: float,
    generators: list[np.random.Generator],
    stops: set[int],
    over: Callable[[list[int]], bool] | None = None,
) -> list[list[int]]:
    """Returns a continuation for each row, up to and with its stop token; finished rows leave the batch.

    A row that has read as many tokens as the model has positions is finished too, and one that `over` says is.
    """
    limit = context_length(rows.model)
    last = rows.position[:, 0].tolist()
    rooms = [max_new_tokens if limit is None else limit - 1 - position for position in last]  # tokens to be read
    made: list[list[int]] = [[] for _ in range(len(rows.mask))]
    active = list(range(len(made)))
    for step in range(max_new_tokens):
        if temperature > 0.0:
            logprobs = torch.log_softmax(rows.model.logits(rows.state), dim=-1).cpu().numpy()  # [B, V]
            chosen = torch.from_numpy(choose_tokens(logprobs, temperature, [generators[row] for row in active]))
        else:
            chosen = rows.model.likeliest(rows.state)
        tokens = chosen.tolist()
        for row, token in zip(active, tokens, strict=True):
            made[row].append(token)
        going = [p for p, token in enumerate(tokens) if token not in stops and step < rooms[active[p]]]
        if over is not None:
            going = [place for place in going if not over(made[active[place]])]
        if not going or step + 1 == max_new_tokens:
            break
        if len(going) < len(active):
            keep = torch.tensor(going)
            rows.keep(keep.to(rows.model.device))
            active, chosen = [active[place] for place in going], chosen[keep]
        rows.advance(chosen)
    return made
