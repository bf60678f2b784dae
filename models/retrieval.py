"""Retrieval: the passages that are nearest to a question, by exact search, and by faiss beyond a million passages.

Letters: P passages, Q questions, D dimensions, k passages found per question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from treegym.checks import number, whole
from treegym.errors import DataError, require
from treegym.models.embeddings import Embedder
from treegym.models.passages import Passage, digest

__all__ = ["EXACT", "Found", "Retriever", "RetrieverSettings", "mmr"]

EXACT = 1_000_000  # passages up to which all are compared
BLOCK = 65_536  # passages compared at a time: bounds the memory
ASKED = 256  # questions asked at a time
WIDER = 4  # candidates per passage wanted, where they are chosen among for diversity
PROBED = 16  # of faiss's cells, how many are looked into


@dataclass(frozen=True, kw_only=True)
class RetrieverSettings:
    """Which passages are taken.

    Attributes:
        passages: how many at most.
        threshold: the least cosine with the question.
        diversity: 0 takes the nearest ones; more prefers passages that say something else (see `mmr`).
    """

    passages: int = 3
    threshold: float = 0.0
    diversity: float = 0.0

    def __post_init__(self) -> None:
        whole("passages", self.passages, low=1)
        number("the threshold of passages", self.threshold, low=-1.0, high=1.0)
        number("the diversity of passages", self.diversity, low=0.0, high=1.0)


@dataclass(frozen=True)
class Found:
    """A passage and the cosine of its vector with the question's."""

    passage: Passage
    score: float


class Retriever:
    """Finds passages."""

    def __init__(
        self,
        passages: Sequence[Passage],
        embedder: Embedder,
        settings: RetrieverSettings | None = None,
        *,
        exact: int = EXACT,
    ) -> None:
        """Embeds the passages.

        Args:
            passages: what is chosen among.
            embedder: makes vectors of passages and questions.
            settings: which passages are taken.
            exact: passages up to which every one is compared; beyond, faiss looks into the nearest cells only.
        """
        if not passages:
            raise DataError("there are no passages to choose among")
        self.passages, self.embedder = list(passages), embedder
        self.settings = settings or RetrieverSettings()
        self.vectors = embedder.embed([passage.text for passage in passages])  # [P, D] float32
        self._cells = _cells(self.vectors) if len(passages) > exact else None

    def find(self, questions: Sequence[str]) -> list[list[Found]]:
        """Returns the passages taken for each question, the best first; none where all are below the threshold."""
        batches = [questions[start : start + ASKED] for start in range(0, len(questions), ASKED)]
        return [found for batch in batches for found in self._find(batch)]

    def _find(self, questions: Sequence[str]) -> list[list[Found]]:
        asked = self.embedder.embed(questions)
        wanted = self.settings.passages * (WIDER if self.settings.diversity else 1)
        places, scores = self.nearest(asked, min(wanted, len(self.passages)))
        found = []
        for near, score in zip(places, scores, strict=True):
            near, score = near[score >= self.settings.threshold], score[score >= self.settings.threshold]
            if self.settings.diversity:
                order = mmr(self.vectors[near], score, self.settings.passages, self.settings.diversity)
                near, score = near[order], score[order]
            found.append([Found(self.passages[place], float(value)) for place, value in zip(near, score, strict=True)])
        return found

    def nearest(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k nearest passages of vectors ``[Q, D]``: places and cosines ``[Q, k]``, the nearest first."""
        if self._cells is not None:
            scores, places = self._cells.search(asked, k)
            return places, np.where(places >= 0, scores, -np.inf)  # -1 where the cells held fewer
        places = np.empty((len(asked), 0), np.int64)
        scores = np.empty((len(asked), 0), np.float32)
        for start in range(0, len(self.vectors), BLOCK):
            block = asked @ self.vectors[start : start + BLOCK].T
            here = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
            scores, places = np.concatenate([scores, block], axis=1), np.concatenate([places, here], axis=1)
            kept = (
                np.argpartition(-scores, k - 1, axis=1)[:, :k] if scores.shape[1] > k else np.argsort(-scores, axis=1)
            )
            scores, places = np.take_along_axis(scores, kept, 1), np.take_along_axis(places, kept, 1)
        order = np.lexsort((places, -scores))  # of equals the earlier passage
        return np.take_along_axis(places, order, 1), np.take_along_axis(scores, order, 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns what the choice depends on besides the question."""
        embedder = {"name": self.embedder.name, "fingerprint": self.embedder.fingerprint()}
        held = {"count": len(self.passages), "digest": digest(self.passages)}
        return {**asdict(self.settings), "embedder": embedder, "held": held, "exact": self._cells is None}


def mmr(vectors: np.ndarray, scores: np.ndarray, k: int, diversity: float) -> list[int]:
    """Returns at most k places by maximal marginal relevance, the first being the nearest.

    The next one is  argmax over i not taken of  (1 - diversity) s_i - diversity max over taken j of v_i . v_j
    (Carbonell and Goldstein 1998, https://doi.org/10.1145/290941.291025, with lambda = 1 - diversity).

    Args:
        vectors: of the candidates, of length one ``[n, D]``.
        scores: their cosines with the question ``[n]``.
        k: how many to take.
        diversity: from 0, relevance alone, to 1.
    """
    taken: list[int] = []
    likeness = np.full(len(scores), -1.0)
    while len(taken) < min(k, len(scores)):
        worth = scores if not taken else (1.0 - diversity) * scores - diversity * likeness
        worth = np.where(np.isin(np.arange(len(scores)), taken), -np.inf, worth)
        taken.append(int(worth.argmax()))
        likeness = np.maximum(likeness, vectors @ vectors[taken[-1]])
    return taken


def _cells(vectors: np.ndarray) -> Any:
    """Returns a faiss index of inner products whose cells were found among the vectors themselves."""
    faiss = require("faiss", extra="retrieval", purpose=f"searching {len(vectors):,} passages")
    index = faiss.index_factory(
        vectors.shape[1], f"IVF{max(1, int(len(vectors) ** 0.5))},Flat", faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors)
    index.add(vectors)
    index.nprobe = PROBED
    return index
