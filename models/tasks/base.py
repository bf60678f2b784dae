"""What every kind of task answers: sample a prompt, name its half, work it out, right or wrong; and the verifier."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

__all__ = ["FORMS", "Form", "Problem", "TaskKind", "final_answer", "is_correct"]

_RESULT = re.compile(r"(?:^|[^0-9])([0-9]+)\.$")
Form = Literal["short", "long"]
FORMS: tuple[Form, ...] = ("short", "long")


@dataclass(frozen=True)
class Problem:
    """One prompt with its reference answer. `half` is the sub-condition on which the teachers' skill depends."""

    kind: str
    half: str
    prompt: str
    answer: str


class TaskKind(ABC):
    """A kind of task, generated procedurally and verified exactly.

    The *short* form states results only, the *long* form spells out each operation; both end every step with a full
    stop, so a full stop alone does not tell that an answer is complete. A *corrupted* answer follows one systematic
    misconception of the kind from beginning to end, and its final result is always wrong.
    """

    name: ClassVar[str]
    halves: ClassVar[tuple[str, str]]  # (on which one teacher is right, on which all but one are)

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> str:
        """Returns a random prompt."""

    @abstractmethod
    def half(self, prompt: str) -> str:
        """Returns which of `halves` a prompt belongs to."""

    @abstractmethod
    def answer(self, prompt: str) -> str:
        """Returns the reference answer, without steps and full stop."""

    @abstractmethod
    def worked(self, prompt: str, *, form: Form = "long", corrupted: bool = False) -> str:
        """Returns the whole answer text, steps and full stops included."""

    @abstractmethod
    def matches(self, prompt: str) -> bool:
        """Returns whether a text is a prompt of this kind."""

    def problem(self, prompt: str) -> Problem:
        """Returns a prompt with its half and its reference answer."""
        return Problem(kind=self.name, half=self.half(prompt), prompt=prompt, answer=self.answer(prompt))


def final_answer(text: str) -> str | None:
    """Returns the last result of an answer text, or None when the text does not end with a result and a full stop."""
    match = _RESULT.search(text.rstrip())
    return match[1] if match else None


def is_correct(text: str, answer: str) -> bool:
    """Returns whether an answer text ends with the reference answer; steps are not looked at."""
    return final_answer(text) == answer
