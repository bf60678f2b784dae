"""Walking with a language model: keys and values of contexts that grow by one token per step, row by row.

Rows are kept as decoding keeps them (`treegym.models.local.row_cache`); beginnings that contexts share are read once.
Between steps rows may leave (their episodes ended); contexts that do not continue the last are read from the start.

Letters: B rows, L context length, T tokens, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from treegym.agents.fast.llama_kernels import continues
from treegym.models.local.decoding_batch import SHARING_PAYS, read_shared, shared_tokens
from treegym.models.local.row_cache import RowCache

__all__ = ["Layers", "Walk"]

ATTENTION = ("sdpa", "eager")  # takes masks that are not causal


@dataclass(frozen=True)
class Layers:
    """The layers of a policy as decoding takes a model."""

    trunk: nn.Module
    config: Any
    device: torch.device
    dtype: torch.dtype  # of the states
    tokenizer: Any  # for its padding

    @classmethod
    def of(cls, trunk: nn.Module, config: Any, tokenizer: Any = None) -> Layers:
        first = next(trunk.parameters())
        return cls(trunk, config, first.device, first.dtype, tokenizer)

    @property
    def takes_trees(self) -> bool:
        """Whether the attention takes masks that are not causal."""
        return (getattr(self.config, "_attn_implementation", None) or "eager") in ATTENTION

    @property
    def warns_of_padding(self) -> bool:
        return hasattr(self.trunk, "warn_if_padding_and_no_attention_mask")

    def hidden(
        self, ids: torch.Tensor, *, positions: torch.Tensor | None = None, mask: Any = None, cache: Any = None
    ) -> torch.Tensor:
        """Returns the last hidden states ``[B, T, D]``."""
        states: torch.Tensor = self.trunk(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state  # fmt: skip
        return states


class Walk:
    """What is kept between two steps of a batch."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drops everything: the weights changed, or another batch begins."""
        self._rows: RowCache | None = None
        self._contexts = np.empty((0, 0), np.int32)  # [B, L] as last seen
        self._lengths = np.empty(0, np.int64)  # [B]

    def advance(self, layers: Layers, contexts: np.ndarray) -> torch.Tensor:
        """Returns the hidden state ``[B, D]`` after each context ``[B, L]`` (padded with -1 on the right)."""
        contexts = np.ascontiguousarray(contexts)
        lengths = (contexts >= 0).sum(1)
        rows = self._continued(contexts)
        if self._rows is None or rows is None:
            self._rows = _read(layers, [row[:n].tolist() for row, n in zip(contexts, lengths, strict=True)])
        else:
            if len(rows) < len(self._contexts):
                self._rows.keep(torch.from_numpy(rows).to(layers.device))
            last = contexts[np.arange(len(rows)), lengths - 1].astype(np.int64)
            self._rows.advance(torch.from_numpy(last))
        self._contexts, self._lengths = contexts, lengths
        return self._rows.state

    def _continued(self, contexts: np.ndarray) -> np.ndarray | None:
        """Returns which kept row ``[B]`` each context continues by one token, in order; None if they do not."""
        if self._rows is None or contexts.shape[1] != self._contexts.shape[1]:
            return None
        rows = np.empty(len(contexts), np.int64)
        return rows if continues(contexts, self._contexts, self._lengths, rows) else None


def _read(layers: Layers, contexts: list[list[int]]) -> RowCache:
    """Reads contexts from the start, as trees where that pays."""
    order = sorted(range(len(contexts)), key=lambda row: contexts[row])
    ranked = [contexts[row] for row in order]
    model: Any = layers
    if not layers.takes_trees or sum(map(len, ranked)) <= SHARING_PAYS * shared_tokens(ranked):
        return RowCache.read(model, contexts)
    found = read_shared(model, ranked)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    found.keep(back.to(layers.device))
    return found
