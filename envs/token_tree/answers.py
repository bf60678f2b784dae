"""Whether a free text gives a reference answer: the verifier of prompts that come without one of their own."""

from __future__ import annotations

import re

__all__ = ["agrees", "stated_answer"]

_MARKER = re.compile(r"####|\\boxed\{|(?:final\s+)?answer\s*(?:is|:|=)|=|:", re.IGNORECASE)
_TRIM = " \t\r\n.,;!?}$*`\"'"


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(_TRIM).casefold()


def stated_answer(text: str) -> str:
    """Returns what a text states as its answer: what follows its last "=", ":" or "answer is"; without one, all."""
    rest = text
    for match in _MARKER.finditer(text):
        if _plain(text[match.end() :]):
            rest = text[match.end() :]
    return _plain(rest)


def agrees(text: str, answer: str) -> bool:
    """Returns whether a text, or what it states as its answer, equals the reference, numbers by value.

    A worked reference counts by what follows its "####".
    """
    wanted = _plain(answer.rsplit("####", 1)[-1])
    return any(given == wanted or _same_number(given, wanted) for given in (_plain(text), stated_answer(text)))


def _same_number(a: str, b: str) -> bool:
    try:
        return float(a.replace(",", "")) == float(b.replace(",", ""))
    except ValueError:
        return False
