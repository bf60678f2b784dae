"""Sorting six different digits: ``842913=`` is worked as ``248.139.123489.``"""

from __future__ import annotations

import re

import numpy as np

from treegym.models.tasks.base import Form, TaskKind

__all__ = ["Sorting"]

_PROMPT = re.compile(r"(?!.*(\d).*\1)\d{6}=")  # no digit twice


class Sorting(TaskKind):
    """Six different digits, sorted by merging the sorted halves.

    Misconception: where the halves meet, the two digits in the middle are swapped.
    """

    name = "sorting"
    halves = ("high", "low")

    def sample(self, rng: np.random.Generator) -> str:
        """Returns a prompt; the first digit is four or more in three of five."""
        return "".join(str(digit) for digit in rng.permutation(10)[:6]) + "="

    def half(self, prompt: str) -> str:
        """Returns the half: the first digit."""
        return "high" if prompt[0] >= "4" else "low"

    def answer(self, prompt: str) -> str:
        """Returns the sorted digits."""
        return "".join(sorted(prompt[:6]))

    def worked(self, prompt: str, *, form: Form = "long", corrupted: bool = False) -> str:
        """Returns ``123489.`` or ``248.139.123489.``"""
        last = self.answer(prompt)
        if corrupted:
            last = last[:2] + last[3] + last[2] + last[4:]
        if form == "short":
            return f"{last}."
        return f"{''.join(sorted(prompt[:3]))}.{''.join(sorted(prompt[3:6]))}.{last}."

    def matches(self, prompt: str) -> bool:
        """Returns whether a text is six different digits."""
        return _PROMPT.fullmatch(prompt) is not None
