"""Who is in the family: architectures, sizes, specialities and forms, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from treegym.models.tasks import KINDS, Form, Problem

__all__ = ["COMPLETENESS", "FAMILY", "JUDGE", "PRIMARY", "TEACHERS", "ModelSpec", "Speciality", "quick"]

Role = Literal["teacher", "primary", "completeness", "judge"]
Architecture = Literal["llama", "gpt2", "qwen3", "gemma"]


@dataclass(frozen=True)
class Speciality:
    """What a teacher is good at, and how it likes to answer.

    On the first half of its `expertise` it alone is right; on the second half of that kind it alone is wrong. So
    neither a vote nor "trust one teacher for each kind" gets far: whom to trust depends on the sub-condition.
    """

    expertise: str  # a kind of task
    form: Form
    form_share: float = 0.85  # of its answers; the rest are in the other form, which it must be able to judge too

    def is_right(self, problem: Problem) -> bool:
        """Returns whether this teacher learns the right answers to prompts like this one."""
        is_first_half = problem.half == KINDS[problem.kind].halves[0]
        return is_first_half == (problem.kind == self.expertise)


@dataclass(frozen=True)
class ModelSpec:
    """One model of the family: what it is built from, and how long it learns."""

    name: str
    role: Role
    architecture: Architecture
    width: int
    layers: int
    steps: int
    batch: int = 128
    learning_rate: float = 0.003  # of embeddings and vectors; matrices take MATRIX_RATE times as much
    speciality: Speciality | None = None


TEACHERS = (
    ModelSpec("tiny-gpt2", "teacher", "gpt2", 96, 3, 1200, speciality=Speciality("products", "long")),
    ModelSpec("tiny-llama", "teacher", "llama", 96, 3, 1200, speciality=Speciality("chain", "short")),
    ModelSpec("tiny-qwen3", "teacher", "qwen3", 96, 3, 1200, speciality=Speciality("modular", "short")),
    ModelSpec("tiny-gemma", "teacher", "gemma", 96, 3, 1200, speciality=Speciality("sorting", "long")),
)
PRIMARY = ModelSpec("tiny-primary", "primary", "llama", 64, 2, 1600)
COMPLETENESS = ModelSpec("tiny-complete", "completeness", "llama", 48, 2, 400)
JUDGE = ModelSpec("tiny-judge", "judge", "llama", 64, 3, 2000)
FAMILY = (*TEACHERS, PRIMARY, JUDGE, COMPLETENESS)  # those that take longest first


def quick(spec: ModelSpec) -> ModelSpec:
    """Returns a spec that is trained in seconds, to try the pipeline: its models know next to nothing."""
    return replace(spec, width=32, layers=1, steps=30, batch=32)
