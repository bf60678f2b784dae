"""Sums modulo a small number: ``37+30%6=`` is worked as ``37+30=67.67-66=1.``"""

from __future__ import annotations

import re

import numpy as np

from treegym.models.tasks.base import Form, TaskKind

__all__ = ["Modular"]

_PROMPT = re.compile(r"([1-9]\d)\+([1-9]\d)%([3-9])=")


class Modular(TaskKind):
    """The remainder of a sum of two numbers, by taking away the largest multiple.

    Misconception: the remainder is counted from one, so it comes out one too large.
    """

    name = "modular"
    halves = ("large", "small")

    def sample(self, rng: np.random.Generator) -> str:
        """Returns a prompt with a sum below 100; five in eight have a modulus of six or more."""
        large = rng.random() < 0.625
        modulus = int(rng.integers(6, 10) if large else rng.integers(3, 6))
        while True:
            a, b = (int(n) for n in rng.integers(10, 90, size=2))
            if a + b < 100:
                return f"{a}+{b}%{modulus}="

    def half(self, prompt: str) -> str:
        """Returns the half: the size of the modulus."""
        return "large" if prompt[-2] in "6789" else "small"

    def answer(self, prompt: str) -> str:
        """Returns the remainder."""
        a, b, modulus = self._parse(prompt)
        return str((a + b) % modulus)

    def worked(self, prompt: str, *, form: Form = "long", corrupted: bool = False) -> str:
        """Returns ``67-66=1.`` or ``37+30=67.67-66=1.``"""
        a, b, modulus = self._parse(prompt)
        total = a + b
        remainder = total % modulus
        step = f"{total}-{total - remainder}={remainder + corrupted}."
        return step if form == "short" else f"{a}+{b}={total}.{step}"

    def matches(self, prompt: str) -> bool:
        """Returns whether a text is a sum with a modulus."""
        return _PROMPT.fullmatch(prompt) is not None

    def _parse(self, prompt: str) -> tuple[int, int, int]:
        match = _PROMPT.fullmatch(prompt)
        assert match is not None, prompt
        return int(match[1]), int(match[2]), int(match[3])
