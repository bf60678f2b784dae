"""Similarity: of each child to the primary's own choice, and of an answer to the reference by embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from treegym.errors import ConfigError, require
from treegym.rewards.base import Request, Term
from treegym.rewards.local import local_model
from treegym.tree.token_tree import TokenTree

__all__ = ["AnswerSimilarity", "Similarity", "cosine"]

Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> [B, D]


class Similarity(Term):
    """The stored cosine of each child to the primary's own choice, in context; unset ones count as 0."""

    kind = "similarity"
    deployable = True
    scope = "step"
    bounds = (-1.0, 1.0)

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        stored = np.nan_to_num(np.asarray(source.similarity)[asked.nodes].astype(np.float64), nan=0.0)
        return np.clip(stored, -1.0, 1.0)  # half precision rounds 1 up to at most 1.0005


class AnswerSimilarity(Term):
    """Cosine of the whole answer to the reference answer, by embeddings.

    Args:
        model: a language model whose hidden states embed (bundled name, directory or hub name), or
            ``"sentence-transformers:NAME"`` for a sentence-transformers model.
    """

    kind = "answer_similarity"
    lazy = True
    bounds = (-1.0, 1.0)

    def __init__(self, *, model: str = "tiny-primary", **common: Any) -> None:
        super().__init__(**common)
        self.model = model
        self._embed: Embed | None = None

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        if self._embed is None:
            self._embed = embedder(self.model)
        roots = np.asarray(source.root_of(asked.nodes))
        texts = [source.text(int(node)) for node in asked.nodes]
        references = [source.answers[int(root)] for root in roots]
        unique = sorted({*texts, *references})
        vectors = dict(zip(unique, self._embed(unique), strict=True))
        return cosine(np.stack([vectors[t] for t in texts]), np.stack([vectors[r] for r in references]))


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the cosine of rows, ``[B]`` from two ``[B, D]``; 0 where a row is zero."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.clip((left * right).sum(axis=1) / np.where(norms > 0, norms, 1.0), -1.0, 1.0)


def embedder(model: str) -> Embed:
    """Returns a function from texts to vectors ``[B, D]``."""
    if model.startswith("sentence-transformers:"):
        package = require("sentence_transformers", extra="embeddings", purpose="embedding answers by sentence")
        try:
            encoder = package.SentenceTransformer(model.partition(":")[2], device="cpu")
        except (OSError, ValueError) as error:
            raise ConfigError(f"the embedding model {model!r} cannot be loaded: {error}") from error
        return lambda texts: encoder.encode(list(texts), show_progress_bar=False)
    language_model = local_model(model)
    tokenizer = language_model.tokenizer
    return lambda texts: language_model.embed([tokenizer.encode(text) or [tokenizer.eos_id] for text in texts])
