"""A language model's opinion of an answer: the term, what it asks, and how the answer is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegym.registry import lazy_face

if TYPE_CHECKING:
    from treegym.rewards.judge.term import Judge

__all__ = ["Judge"]

__getattr__, __dir__ = lazy_face(__name__, {"Judge": "term"})
