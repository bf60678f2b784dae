"""Sums of two products: ``7*6+8*4=`` is worked as ``7*6=42.8*4=32.74.``"""

from __future__ import annotations

import re

import numpy as np

from treegym.models.tasks.base import Form, TaskKind

__all__ = ["Products"]

_PROMPT = re.compile(r"([2-9])\*([2-9])([+-])([2-9])\*([2-9])=")


class Products(TaskKind):
    """Four factors; the partial products are added or subtracted, never below zero.

    Misconception: the second product is read off one row too far down the multiplication table (``8*4=40``).
    """

    name = "products"
    halves = ("odd", "even")

    def sample(self, rng: np.random.Generator) -> str:
        """Returns a prompt; five in eight begin with an odd factor. Results stay above zero, corrupted ones too."""
        odd, minus = rng.random(2) < (0.625, 0.4)
        while True:
            first, b, c, d = (int(n) for n in rng.integers((1, 2, 2, 2), (5, 10, 10, 10)))
            a = 2 * first + 1 if odd else 2 * first
            if not minus:
                return f"{a}*{b}+{c}*{d}="
            if a * b > c * (d + 1):
                return f"{a}*{b}-{c}*{d}="

    def half(self, prompt: str) -> str:
        """Returns the half: the parity of the first factor."""
        return "odd" if prompt[0] in "3579" else "even"

    def answer(self, prompt: str) -> str:
        """Returns the sum or difference."""
        return self.worked(prompt, form="short").split(".")[2]

    def worked(self, prompt: str, *, form: Form = "long", corrupted: bool = False) -> str:
        """Returns ``42.32.74.`` or ``7*6=42.8*4=32.74.``"""
        match = _PROMPT.fullmatch(prompt)
        assert match is not None, prompt
        a, b, c, d = (int(match[group]) for group in (1, 2, 4, 5))
        left, right = a * b, c * (d + 1) if corrupted else c * d
        last = left - right if match[3] == "-" else left + right
        if form == "short":
            return f"{left}.{right}.{last}."
        return f"{a}*{b}={left}.{c}*{d}={right}.{last}."

    def matches(self, prompt: str) -> bool:
        """Returns whether a text is a sum of two products."""
        return _PROMPT.fullmatch(prompt) is not None
