"""Walking with a language model: keys and values of contexts that grow by a token a step, row by row.

Rows are kept padded on the left, so that every step appends one column. Between steps rows may leave (their episodes
ended); contexts that do not continue the last ones are read from the start.

Letters: B rows, L context length, P columns kept, D hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from treegym.agents.fast.llama_kernels import continues

__all__ = ["Walk"]


class Walk:
    """What is kept between two steps of a batch."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drops everything: the weights changed, or another batch begins."""
        self._cache: Any = None
        self._contexts = np.empty((0, 0), np.int32)  # [B, L] as last seen
        self._lengths = np.empty(0, np.int64)  # [B]
        self._seen = torch.empty((0, 0))  # [B, P] which kept columns are tokens

    def advance(self, layers: nn.Module, contexts: np.ndarray, device: torch.device) -> torch.Tensor:
        """Returns the hidden state ``[B, D]`` after each context ``[B, L]`` (padded with -1 on the right)."""
        contexts = np.ascontiguousarray(contexts)
        lengths = (contexts >= 0).sum(1)
        rows = self._continued(contexts)
        state = self._read(layers, contexts, lengths, device) if rows is None else self._append(layers, contexts, rows)
        self._contexts, self._lengths = contexts, lengths
        return state

    def _continued(self, contexts: np.ndarray) -> np.ndarray | None:
        """Returns which kept row ``[B]`` each context continues by one token, in order; None if they do not."""
        if self._cache is None or contexts.shape[1] != self._contexts.shape[1]:
            return None
        rows = np.empty(len(contexts), np.int64)
        return rows if continues(contexts, self._contexts, self._lengths, rows) else None

    def _read(self, layers: nn.Module, contexts: np.ndarray, lengths: np.ndarray, device: torch.device) -> torch.Tensor:
        from transformers import DynamicCache

        width = int(lengths.max())
        column = np.arange(width)[None] - (width - lengths[:, None])  # [B, P] place in the context; negative: padding
        ids = np.where(column >= 0, np.take_along_axis(contexts, np.maximum(column, 0), axis=1), 0)
        self._cache = DynamicCache()
        self._seen = torch.from_numpy((column >= 0).astype(np.int64)).to(device)
        return self._forward(layers, torch.from_numpy(ids.astype(np.int64)).to(device), np.maximum(column, 0))

    def _append(self, layers: nn.Module, contexts: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        lengths = self._lengths[rows]
        ids = torch.from_numpy(contexts[np.arange(len(rows)), lengths].astype(np.int64))[:, None].to(self._seen.device)
        if len(rows) < len(self._contexts):
            keep = torch.from_numpy(rows).to(self._seen.device)
            self._cache.batch_select_indices(keep)
            self._seen = self._seen[keep]
        self._seen = torch.cat([self._seen, self._seen.new_ones(len(rows), 1)], dim=1)
        return self._forward(layers, ids, lengths[:, None])

    def _forward(self, layers: nn.Module, ids: torch.Tensor, positions: np.ndarray) -> torch.Tensor:
        where = torch.from_numpy(positions.astype(np.int64)).to(ids.device)
        mask = None if bool(self._seen.all()) else self._seen
        states = layers(
            input_ids=ids, position_ids=where, attention_mask=mask, past_key_values=self._cache, use_cache=True
        )
        return states.last_hidden_state[:, -1]
