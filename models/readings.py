"""What is asked of next-token distributions, and what comes back: the mass of sets of tokens, and ranks.

Letters: R rows, V vocabulary, k ranks, Q questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from treegym.models.base import TokenIds

__all__ = ["Question", "Readings", "ReadsVocabulary"]


@dataclass(frozen=True)
class Question:
    """The mass of a set of tokens after some rows, in any order."""

    tokens: np.ndarray  # [n] int64, rising
    rows: np.ndarray  # [Q] int64


@dataclass
class Readings:
    """What rows say. An id of -1: there is no such rank."""

    singles: np.ndarray  # [Q] float32, log-probability of each asked token after its row
    masses: list[np.ndarray] = field(default_factory=list)  # of each question [Q] float32, the log of the set's mass
    best_ids: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))  # [R, k] int32, best first
    best_logp: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    worst_ids: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))  # [R, k], worst first
    worst_logp: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))


class ReadsVocabulary(Protocol):
    """A back end on this machine, whose states can be asked about parts of the vocabulary."""

    reads_sets: bool  # it tells the mass of sets of tokens
    reads_blocks: bool  # it never holds a whole row of a large vocabulary

    def read_vocabulary(self, states: Any, **asked: Any) -> Readings:
        """Returns what is asked of the distributions after states ``[R, D]``."""
        ...

    def last_states(self, contexts: Sequence[Sequence[TokenIds]]) -> Any:
        """Returns the last state of every context of every group of contexts that begin alike ``[R, D]``."""
        ...
