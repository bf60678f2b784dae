"""The key/value cache of rows of tokens: contexts that grow, lose their last tokens, and join or leave a batch.

Rows are padded on the left, so the last column is every row's last token. Decoding, continuations of trees, serving and
speculation all keep their rows here; `treegym.models.local.kv_cache` keeps nodes of trees instead.

Letters: B rows, P columns, T new columns, H key/value heads, h head size, D hidden size, S tokens read before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from treegym.models.base import TokenIds, context_length
from treegym.models.local.network import Network
from treegym.models.local.tree_attention import additive_masks

__all__ = ["RowCache"]


@dataclass
class RowCache:
    """Keys and values of a batch of rows."""

    model: Network
    cache: Any  # keys and values of every row's tokens, padded on the left
    mask: torch.Tensor  # [B, P] long, 1 where a column is a token of the row
    position: torch.Tensor  # [B, 1] position of the last token
    state: torch.Tensor  # [B, D] last hidden state, from which the next token is read

    # ---------------------------------------------------------------- beginning

    @classmethod
    def empty(cls, model: Network, rows: int) -> RowCache:
        """Returns rows without a token."""
        from transformers import DynamicCache

        nothing = torch.zeros((rows, 0), dtype=torch.long, device=model.device)
        return cls(model, DynamicCache(), nothing, nothing.new_full((rows, 1), -1), nothing.to(model.dtype))

    @classmethod
    @torch.inference_mode()
    def read(cls, model: Network, contexts: Sequence[TokenIds]) -> RowCache:
        """Returns contexts, read one by one in one batch."""
        longest = max(len(context) for context in contexts)
        ids = np.full((len(contexts), longest), model.tokenizer.pad_id, np.int64)
        mask = np.zeros((len(contexts), longest), np.int64)
        for row, context in enumerate(contexts):
            ids[row, longest - len(context) :] = context
            mask[row, longest - len(context) :] = 1
        rows = cls.empty(model, len(contexts))
        rows.mask = torch.from_numpy(mask).to(model.device)
        positions = (rows.mask.cumsum(dim=1) - 1).clamp(min=0)
        padded = rows.mask if (mask == 0).any() or model.warns_of_padding else None
        on = torch.from_numpy(ids).to(model.device)
        rows.state = model.hidden(on, positions=positions, mask=padded, cache=rows.cache)[:, -1]
        rows.position = positions[:, -1:]
        return rows

    @classmethod
    def gathered(
        cls,
        model: Network,
        read: Sequence[tuple[torch.Tensor, torch.Tensor]],
        states: torch.Tensor,
        paths: Sequence[Sequence[int] | np.ndarray],
    ) -> RowCache:
        """Returns rows of tokens that were read before.

        Args:
            model: the model that read them.
            read: per layer the keys and the values of all tokens read ``[S, H, h]``.
            states: their last hidden states ``[S, D]``.
            paths: per row the places of its tokens in S.
        """
        longest = max(len(path) for path in paths)
        index = np.zeros((len(paths), longest), np.int64)  # [B, P]
        mask = np.zeros((len(paths), longest), np.int64)
        for row, path in enumerate(paths):
            index[row, longest - len(path) :] = path
            mask[row, longest - len(path) :] = 1
        rows = cls.empty(model, len(paths))
        where, rows.mask = torch.from_numpy(index).to(model.device), torch.from_numpy(mask).to(model.device)
        for layer, (keys, values) in enumerate(read):
            rows.cache.update(keys[where].transpose(1, 2), values[where].transpose(1, 2), layer)  # [B, H, P, h]
        rows.position = rows.mask.sum(dim=1, keepdim=True) - 1
        rows.state = states[where[:, -1]]
        return rows

    # ---------------------------------------------------------------- going on

    def advance(self, tokens: torch.Tensor) -> None:
        """Reads one more token ``[B]`` of every row."""
        self.position = self.position + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        ids = tokens[:, None].to(self.model.device)
        self.state = self.model.hidden(ids, positions=self.position, mask=self.mask, cache=self.cache)[:, -1]

    @torch.inference_mode()
    def append(self, ids: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Reads the first ``lengths[b]`` of new tokens ``[B, T]`` (default all); returns their states ``[B, T, D]``.

        `state` is not kept up, as the caller has the states.
        """
        columns = torch.arange(ids.shape[1], device=ids.device)
        count = ids.shape[1] if lengths is None else lengths[:, None]
        new = self.position + 1 + columns  # [B, T]
        limit = int((self.position + count).max())
        if (length := context_length(self.model)) is not None:  # proposals beyond the end are never kept
            limit = min(limit, length - 1)
        positions = new.clamp(max=limit)
        old, self.mask = self.mask, torch.cat([self.mask, (columns < count).long().expand(ids.shape)], dim=1)
        self.position = self.position + count
        masks = self._masks(old, positions) if self.model.supports_tree_attention else self.mask
        states = self.model.hidden(ids, positions=positions, mask=masks, cache=self.cache)
        if lengths is not None:
            self._settle()
        return states

    def _masks(self, old: torch.Tensor, positions: torch.Tensor) -> Any:
        """Returns what new tokens may see, as layers take it; worked out by the layers themselves it costs more."""
        new = positions.shape[1]
        visible = self.mask.bool()[:, None, :].repeat(1, new, 1)  # [B, T, P + T]
        visible[:, :, -new:] &= torch.ones((new, new), dtype=torch.bool, device=visible.device).tril()
        visible[:, :, -new:] |= torch.eye(new, dtype=torch.bool, device=visible.device)  # padding sees itself
        keys = torch.cat([(old.cumsum(dim=1) - 1).clamp(min=0), positions], dim=1)
        return additive_masks(self.model, visible, positions, keys)

    def take_back(self, dropped: torch.Tensor) -> None:
        """Takes the last ``dropped[b]`` tokens of each row back; `state` is no longer valid."""
        columns = torch.arange(self.mask.shape[1], device=self.mask.device)
        self.mask = self.mask * (columns < self.mask.shape[1] - dropped[:, None])
        self.position = self.position - dropped[:, None]
        self._settle()

    # ---------------------------------------------------------------- which rows there are

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps some rows and drops the others."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position, self.state = self.mask[rows], self.position[rows], self.state[rows]

    def join(self, other: RowCache) -> None:
        """Adds the rows of another cache behind these; the narrower is padded on the left."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        first, second = width - self.mask.shape[1], width - other.mask.shape[1]
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            for name in ("keys", "values"):
                parts = pad(getattr(mine, name), (0, 0, first, 0)), pad(getattr(theirs, name), (0, 0, second, 0))
                setattr(mine, name, torch.cat(parts))
        self.mask = torch.cat([pad(self.mask, (first, 0)), pad(other.mask, (second, 0))])
        self.position = torch.cat([self.position, other.position])
        self.state = torch.cat([self.state, other.state])

    def trim(self) -> None:
        """Drops the columns that no row needs any more."""
        start = self.mask.shape[1] - int(self.mask.sum(dim=1).max())
        if start > 0:
            self.mask = self.mask[:, start:]
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, start:], layer.values[:, :, start:]

    def _settle(self) -> None:
        """Moves every row's tokens to the right, where they belong, and drops the columns that no row needs."""
        if bool(self.mask[:, -1].all()):  # no row ends in a hole
            self.trim()
            return
        width = int(self.mask.sum(dim=1).max())
        order = torch.argsort(self.mask, dim=1, stable=True)[:, -width:]  # [B, width]
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                stored = getattr(layer, name)  # [B, H, P, h]
                index = order[:, None, :, None].expand(-1, stored.shape[1], -1, stored.shape[3])
                setattr(layer, name, stored.gather(2, index))
        self.mask = self.mask.gather(1, order)
