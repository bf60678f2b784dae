"""A key/value cache whose rows have tokens taken back: what was rejected is hidden from attention and then dropped.

Letters: B rows, P columns so far, T new columns, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch

from treegym.models.base import context_length
from treegym.models.local.network import Network
from treegym.models.local.tree_attention import additive_masks

__all__ = ["RaggedCache"]


class RaggedCache:
    """Keys and values of rows of different lengths, each token at its own position."""

    def __init__(self, model: Network, rows: int) -> None:
        from transformers import DynamicCache

        self.model = model
        self._cache: Any = DynamicCache()
        self._valid = torch.zeros((rows, 0), dtype=torch.bool, device=model.device)  # [B, P]
        self._position = torch.zeros((rows, 0), dtype=torch.long, device=model.device)  # [B, P]

    @property
    def lengths(self) -> torch.Tensor:
        """Valid tokens of each row ``[B]``."""
        return self._valid.sum(dim=1)

    @torch.inference_mode()
    def append(self, ids: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Runs new tokens ``[B, T]`` through the model and keeps them; returns their hidden states ``[B, T, D]``.

        `valid` [B, T] marks which columns are tokens; in each row they come first.
        """
        start = self._valid.shape[1]
        new = self.lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)  # [B, T]
        limit = int(torch.where(valid, new, 0).max())
        if (length := context_length(self.model)) is not None:  # proposals beyond the end are never kept
            limit = min(limit, length - 1)
        positions = new.clamp(max=limit)  # padding stays inside the model's range
        self._valid = torch.cat([self._valid, valid], dim=1)
        self._position = torch.cat([self._position, positions], dim=1)
        causal = torch.ones((ids.shape[1], ids.shape[1]), dtype=torch.bool, device=ids.device).tril()
        visible = self._valid[:, None, :].repeat(1, ids.shape[1], 1)  # [B, T, P + T]
        visible[:, :, start:] &= causal
        visible[:, :, start:] |= torch.eye(ids.shape[1], dtype=torch.bool, device=ids.device)  # padding sees itself
        mask = additive_masks(self.model, visible, positions, self._position)
        return self.model.hidden(ids, positions=positions, mask=mask, cache=self._cache)

    def take_back(self, kept: torch.Tensor) -> None:
        """Keeps the first ``kept[b]`` of the columns that were appended last in each row, and drops the others."""
        columns = torch.arange(self._valid.shape[1], device=kept.device)
        self._valid &= columns[None, :] < kept[:, None]
        self._compact()

    def columns(self) -> int:
        """Columns so far, to count from in `take_back`."""
        return int(self._valid.shape[1])

    def select(self, rows: torch.Tensor) -> None:
        """Keeps only some rows."""
        self._cache.batch_select_indices(rows)
        self._valid, self._position = self._valid[rows], self._position[rows]
        self._compact()

    def _compact(self) -> None:
        """Moves every row's tokens to the left and cuts the columns that no row needs."""
        width = int(self.lengths.max()) if len(self._valid) else 0
        if width == self._valid.shape[1]:
            return
        order = torch.argsort((~self._valid).to(torch.int8), dim=1, stable=True)[:, :width]  # [B, width]
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                stored = getattr(layer, name)  # [B, H, P, head size]
                index = order[:, None, :, None].expand(-1, stored.shape[1], -1, stored.shape[3])
                setattr(layer, name, stored.gather(2, index))
        self._valid, self._position = self._valid.gather(1, order), self._position.gather(1, order)
