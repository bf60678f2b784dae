"""The narrow protocol of a language model: token ids in; log-probabilities, scores, samples and a fingerprint out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from treegym.errors import ConfigError

__all__ = [
    "LanguageModel",
    "TextTokenizer",
    "TokenIds",
    "check_contexts",
    "check_length",
    "context_length",
    "told_logprobs",
]

TokenIds = Sequence[int]


class TextTokenizer(Protocol):
    """Text to token ids and back. Decoding what was encoded gives the text back, byte for byte."""

    vocab_size: int
    eos_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: TokenIds) -> str: ...

    def pieces(self) -> list[bytes]:
        """Returns the bytes each token id stands for (empty for special tokens)."""
        ...

    def fingerprint(self) -> str:
        """Returns a hash of the vocabulary and the rules, equal for equal tokenizers."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A batched, seeded causal language model. Contexts are lists of token ids of any lengths."""

    name: str
    tokenizer: TextTokenizer

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        """Returns log-probabilities of the next token ``[B, V] float32``."""
        ...

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k likeliest next tokens, best first: ids ``[B, k] int32`` and log-probabilities ``[B, k]``."""
        ...

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        """Returns, for each pair, the log-probability of every continuation token ``[T] float32``."""
        ...

    def generate(
        self,
        contexts: Sequence[TokenIds],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop_ids: TokenIds | None = None,
    ) -> list[list[int]]:
        """Returns a continuation for each context, up to and with its stop token (default EOS); greedy at 0."""
        ...

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        """Returns one vector per context ``[B, D] float32`` (the last hidden state)."""
        ...

    def fingerprint(self) -> str:
        """Returns a hash of weights and configuration, equal for equal models."""
        ...


def check_contexts(contexts: Sequence[TokenIds], *, name: str = "", limit: int | None = None) -> None:
    """Raises when a context is empty, as no model can go on from nothing, or longer than a model's `limit`."""
    if any(not len(context) for context in contexts):
        raise ConfigError("a context is empty; a model needs at least one token to go on from")
    if limit is not None and contexts:
        check_length(max(map(len, contexts)), name=name, limit=limit)


def check_length(tokens: int, *, name: str, limit: int | None) -> None:
    """Raises when a text has more tokens than a model has positions."""
    if limit is not None and tokens > limit:
        raise ConfigError(
            f"a context has {tokens} tokens, but {name} takes {limit} at most; shorten it, or use a model with more "
            "positions (max_position_embeddings)"
        )


def context_length(model: object) -> int | None:
    """Returns how many tokens a text may have, None for a model that does not say."""
    told = getattr(model, "context_length", None)
    return told if isinstance(told, int) else None


def told_logprobs(model: Any) -> int:
    """Returns how many of the likeliest tokens a model tells per position: all, unless it says that it tells fewer.

    The first call asks a served model's server what it understands.
    """
    told = getattr(model, "told_logprobs", None)
    return model.tokenizer.vocab_size if told is None else int(told)
