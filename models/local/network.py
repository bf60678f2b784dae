"""What decoding, tree masks and caches need of a model: its layers, its head, and how it takes batches."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from treegym.models.base import TextTokenizer

__all__ = ["Network"]


class Network(Protocol):
    """A causal transformer in inference mode; `TransformersModel` is one.

    Letters: B rows, T tokens, D hidden size, V vocabulary.
    """

    name: str
    tokenizer: TextTokenizer
    config: Any
    device: torch.device
    dtype: torch.dtype
    attention: str
    batch_tokens: int  # most tokens, with padding, of one forward pass
    supports_tree_attention: bool  # whether the layers take masks that are not causal
    warns_of_padding: bool
    reads_blocks: bool  # whether its vocabulary is large, and its head a plain matrix: see `vocabulary_head`
    ends: tuple[int, ...]  # tokens that end an answer, EOS first

    def hidden(
        self, ids: torch.Tensor, *, positions: torch.Tensor | None = None, mask: Any = None, cache: Any = None
    ) -> torch.Tensor:
        """Returns the last hidden states ``[B, T, D]``; `mask` and `cache` are handed to the layers as they are."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the logits ``[..., V] float32`` of last hidden states ``[..., D]``."""
        ...

    def block_of_logits(self, hidden: torch.Tensor, low: int, high: int) -> torch.Tensor:
        """Returns the logits ``[R, high - low] float32`` of some tokens alone, ends apart from each other."""
        ...

    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the likeliest next token of each state ``[B] int64``, on the CPU."""
        ...
