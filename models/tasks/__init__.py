"""The bundled task suite: four kinds of procedurally generated tasks with exact verifiers and worked steps."""

from __future__ import annotations

from treegym.errors import ConfigError, suggest
from treegym.models.tasks.base import FORMS, Form, Problem, TaskKind, final_answer, is_correct
from treegym.models.tasks.chain import Chain
from treegym.models.tasks.modular import Modular
from treegym.models.tasks.products import Products
from treegym.models.tasks.sorting import Sorting
from treegym.models.tasks.splits import SPLITS, Split, split_of, stream
from treegym.models.tasks.splits import sample as _sample

__all__ = [
    "FORMS",
    "KINDS",
    "MAX_ANSWER_TOKENS",
    "SPLITS",
    "Form",
    "Problem",
    "Split",
    "TaskKind",
    "final_answer",
    "is_correct",
    "kind_of",
    "problems",
    "split_of",
    "stream",
]

KINDS: dict[str, TaskKind] = {kind.name: kind for kind in (Chain(), Products(), Modular(), Sorting())}
MAX_ANSWER_TOKENS = 24  # the longest worked answer has 18 characters and the end token


def kind_of(prompt: str) -> TaskKind:
    """Returns the kind of a prompt."""
    for kind in KINDS.values():
        if kind.matches(prompt):
            return kind
    raise ConfigError(f"{prompt[:60]!r} is not a prompt of the bundled tasks.{suggest('', KINDS)}")


def problems(split: Split, count: int, *, seed: int = 0) -> list[Problem]:
    """Returns `count` problems of a split with different prompts, the kinds in turn; more of them extend fewer."""
    return _sample(tuple(KINDS.values()), count, split=split, seed=seed)
