"""How alike a text is to those that are there already: by ROUGE-L, or by the cosine of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from treegym.errors import require
from treegym.models.embeddings import Embedder, WordEmbedder, load_embedder

__all__ = ["Likeness", "Rouge", "Vectors", "likeness_named"]


class Likeness(Protocol):
    """Texts that are there, and how alike another one is."""

    def add(self, texts: Sequence[str]) -> None: ...

    def nearest(self, text: str) -> float:
        """Returns the likeness with the most alike text, in [0, 1] or as a cosine; 0 where there is none."""
        ...


class Rouge:
    """ROUGE-L, the F measure of the longest common subsequence of words (Lin 2004, https://aclanthology.org/W04-1013).

    Self-Instruct keeps what is below 0.7 (Wang et al. 2022, https://arxiv.org/abs/2212.10560).
    """

    def __init__(self) -> None:
        library = require("rouge_score.rouge_scorer", extra="rouge", purpose="likeness by ROUGE-L")
        self._scorer: Any = library.RougeScorer(["rougeL"])
        self._texts: list[str] = []

    def add(self, texts: Sequence[str]) -> None:
        self._texts += texts

    def nearest(self, text: str) -> float:
        return max((float(self._scorer.score(one, text)["rougeL"].fmeasure) for one in self._texts), default=0.0)


class Vectors:
    """Cosines of an embedder's vectors."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: list[np.ndarray] = []  # [D] each

    def add(self, texts: Sequence[str]) -> None:
        self._vectors += list(self._embedder.embed(texts)) if texts else []

    def nearest(self, text: str) -> float:
        if not self._vectors:
            return 0.0
        [vector] = self._embedder.embed([text])
        return float(max(np.stack(self._vectors) @ vector))


def likeness_named(name: str, texts: Sequence[str]) -> Likeness:
    """Returns a likeness without texts yet.

    Args:
        name: ``rouge`` (the extra of that name), ``words``, or a sentence-transformers model.
        texts: those in which rare words are rare, for ``words``.
    """
    if name == "rouge":
        return Rouge()
    return Vectors(WordEmbedder(texts) if name == "words" else load_embedder(name))
