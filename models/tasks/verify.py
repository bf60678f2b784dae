"""The exact verifier: the result after the last step must equal the reference answer."""

from __future__ import annotations

import re

__all__ = ["final_answer", "is_correct"]

_RESULT = re.compile(r"(?:^|[^0-9])([0-9]+)\.$")


def final_answer(text: str) -> str | None:
    """Returns the last result of an answer text, or None when the text does not end with a result and a full stop."""
    match = _RESULT.search(text.rstrip())
    return match[1] if match else None


def is_correct(text: str, answer: str) -> bool:
    """Returns whether an answer text ends with the reference answer; steps are not looked at."""
    return final_answer(text) == answer
