"""Chains of additions and subtractions: ``81-48+8=`` is worked as ``81-48=33.33+8=41.``"""

from __future__ import annotations

import re

import numpy as np

from treegym.models.tasks.base import Form, TaskKind

__all__ = ["Chain"]

_PROMPT = re.compile(r"([1-9]\d)([+-])([1-9]\d)([+-])([1-9])=")


class Chain(TaskKind):
    """Two numbers of two digits and one of one digit.

    Misconception: the carry (or borrow) between the digits is dropped where there is one and made where there is none,
    so the first result is off by ten.
    """

    name = "chain"
    halves = ("minus", "plus")

    def sample(self, rng: np.random.Generator) -> str:
        """Returns a prompt whose results, right or corrupted, stay between 1 and 99; five in eight begin with minus."""
        minus, minus_too = rng.random(2) < (0.625, 0.5)
        while True:
            a, b, c = (int(n) for n in rng.integers((10, 10, 1), (100, 100, 10)))
            if 20 <= (a - b if minus else a + b) <= 80:
                return f"{a}{'-' if minus else '+'}{b}{'-' if minus_too else '+'}{c}="

    def half(self, prompt: str) -> str:
        """Returns the half: the first operation."""
        return "minus" if prompt[2] == "-" else "plus"

    def answer(self, prompt: str) -> str:
        """Returns the last result."""
        return self.worked(prompt, form="short").split(".")[1]

    def worked(self, prompt: str, *, form: Form = "long", corrupted: bool = False) -> str:
        """Returns ``33.41.`` or ``81-48=33.33+8=41.``"""
        a, first, b, second, c = self._parse(prompt)
        middle = a - b if first == "-" else a + b
        if corrupted:
            crossed = a % 10 < b % 10 if first == "-" else a % 10 + b % 10 > 9
            middle += 10 if crossed == (first == "-") else -10
        last = middle - c if second == "-" else middle + c
        if form == "short":
            return f"{middle}.{last}."
        return f"{a}{first}{b}={middle}.{middle}{second}{c}={last}."

    def matches(self, prompt: str) -> bool:
        """Returns whether a text is a chain."""
        return _PROMPT.fullmatch(prompt) is not None

    def _parse(self, prompt: str) -> tuple[int, str, int, str, int]:
        match = _PROMPT.fullmatch(prompt)
        assert match is not None, prompt
        a, first, b, second, c = match.groups()
        return int(a), first, int(b), second, int(c)
