"""Packing: the tokens of many contexts one after the other, with what they have in common written once.

Letters: M tokens, S segments, E contexts, L context length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Packed"]


@dataclass
class Packed:
    """Runs of tokens (segments); each may continue one earlier segment, which itself continues none."""

    ids: np.ndarray  # [M] int64
    place: np.ndarray  # [M] int64, of each token in its text
    start: np.ndarray  # [S] int64, where a segment begins
    length: np.ndarray  # [S] int64
    before: np.ndarray  # [S] int64, the segment it continues, -1: none
    store: Callable[[Any], None] | None = None  # called with every layer's queries, keys and values

    @classmethod
    def of(cls, texts: Sequence[np.ndarray]) -> Packed:
        """Packs texts that share nothing."""
        length = np.array([len(text) for text in texts], np.int64)
        start = np.cumsum(length) - length
        place = np.arange(length.sum()) - np.repeat(start, length)
        ids = np.concatenate(texts).astype(np.int64) if len(texts) else np.empty(0, np.int64)
        return cls(ids, place, start, length, np.full(len(texts), -1, np.int64))

    @classmethod
    def of_episodes(cls, contexts: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[Packed, np.ndarray]:
        """Packs episodes; those that begin with the same tokens share the segment of them.

        Args:
            contexts: the last context of each episode ``[E, L]``, padded on the right.
            first: the length of each episode's first context ``[E]``: what it began with.
            last: the length of its last context ``[E]``.

        Returns:
            The tokens, and for each episode where its context of length n ends: ``[E, L]``, at column n - 1.
        """
        segments: dict[bytes, int] = {}
        which = np.empty(len(contexts), np.int64)  # the segment that each episode begins with
        heads: list[int] = []  # the episode whose beginning it is taken from
        for episode, n in enumerate(first.tolist()):
            key = contexts[episode, :n].tobytes()
            if key not in segments:
                segments[key] = len(heads)
                heads.append(episode)
            which[episode] = segments[key]
        own = np.flatnonzero(last > first)
        shared = len(heads)
        length = np.concatenate([first[heads], (last - first)[own]])
        start = np.cumsum(length) - length
        before = np.concatenate([np.full(shared, -1), which[own]]).astype(np.int64)
        begins = np.concatenate([np.zeros(shared, np.int64), first[own]])
        row = np.concatenate([np.array(heads, np.int64), own])
        place = np.arange(length.sum()) - np.repeat(start - begins, length)
        ids = contexts[np.repeat(row, length), place].astype(np.int64)
        columns = np.arange(contexts.shape[1])[None]
        at = start[which][:, None] + columns  # [E, L] while still in the beginning
        later = np.zeros(len(contexts), np.int64)
        later[own] = start[shared:] - first[own]
        at = np.where(columns < first[:, None], at, later[:, None] + columns)
        return cls(ids, place, start, length, before), at
