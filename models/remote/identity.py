"""Whether the model behind a URL is still the one it was, told by how it behaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treegym.errors import BackendError
from treegym.models.base import TextTokenizer, TokenIds
from treegym.models.tokens.tokenizers import prefix_ids

__all__ = ["DifferentModel", "difference", "probe_contexts"]

PROBES, LENGTH = 4, 6


class DifferentModel(BackendError):
    """Another model answers behind the same URL; what was asked before and what would be asked now do not mix."""


def probe_contexts(tokenizer: TextTokenizer) -> list[list[int]]:
    """Returns the fixed contexts on which models are told apart, any tokenizer's own."""
    printable = [token for token, piece in enumerate(tokenizer.pieces()) if piece]
    drawn = np.random.default_rng(20_26).integers(0, len(printable), size=(PROBES, LENGTH))
    begin = list(prefix_ids(tokenizer))
    return [begin + [printable[i] for i in row] for row in drawn.tolist()]


def difference(
    before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray], contexts: Sequence[TokenIds]
) -> float:
    """Returns the largest change of a log-probability among the tokens both told, infinite if they share too few.

    Each is token ids ``[P, k] int32`` and log-probabilities ``[P, k] float32`` of the probe contexts. Tokens near the
    cut at k may swap by rounding, so one in the list may be missing from the other.
    """
    largest = 0.0
    for row in range(len(contexts)):
        old = dict(zip(before[0][row].tolist(), before[1][row].tolist(), strict=True))
        new = dict(zip(now[0][row].tolist(), now[1][row].tolist(), strict=True))
        shared = old.keys() & new.keys()
        if len(shared) < max(1, len(old) - 1):
            return float("inf")
        largest = max(largest, *(abs(old[token] - new[token]) for token in shared))
    return largest
