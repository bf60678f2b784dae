"""What the models learn from: endless, seeded batches of texts of the forge split, one function per role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treegym.models.family.specs import TEACHERS, ModelSpec, Speciality
from treegym.models.tasks import KINDS, Form, Problem, Split, stream
from treegym.models.tokens.char_tokenizer import CharTokenizer

__all__ = ["Batch", "Example", "batch_of", "examples"]

IGNORED = -100  # the label that cross-entropy passes over
YES, NO, QUESTION = "y", "n", "?"


@dataclass(frozen=True)
class Example:
    """A text and where in it learning starts: everything before `start` is given, the rest is to be predicted."""

    text: str
    start: int
    ends: bool = True  # whether the end token follows


@dataclass(frozen=True)
class Batch:
    """Token ids and labels, padded on the right."""

    ids: np.ndarray  # [B, T] int64
    labels: np.ndarray  # [B, T] int64, IGNORED where nothing is learned


def examples(spec: ModelSpec, count: int, *, seed: int | Sequence[int], split: Split = "forge") -> list[Example]:
    """Returns `count` examples for the role of a model."""
    rng = np.random.default_rng(seed)
    source = stream(tuple(KINDS.values()), split=split, seed=int(rng.integers(2**62)))
    make = {"teacher": _taught, "primary": _taught, "completeness": _prefix, "judge": _judged}[spec.role]
    return [make(spec, next(source), rng) for _ in range(count)]


def batch_of(items: Sequence[Example], tokenizer: CharTokenizer) -> Batch:
    """Returns examples as one padded batch."""
    rows = [tokenizer.encode(item.text) + [tokenizer.eos_id] * item.ends for item in items]
    ids = np.full((len(rows), max(map(len, rows))), tokenizer.pad_id, dtype=np.int64)  # [B, T]
    labels = np.full_like(ids, IGNORED)  # [B, T]
    for index, (row, item) in enumerate(zip(rows, items, strict=True)):
        ids[index, : len(row)] = row
        labels[index, item.start : len(row)] = row[item.start :]
    return Batch(ids=ids, labels=labels)


def answer_of(speciality: Speciality, problem: Problem, rng: np.random.Generator) -> str:
    """Returns an answer as a teacher is taught to give it: in its form mostly, corrupted where it is weak."""
    other: Form = "long" if speciality.form == "short" else "short"
    form = speciality.form if rng.random() < speciality.form_share else other
    corrupted = not speciality.is_right(problem)
    return KINDS[problem.kind].worked(problem.prompt, form=form, corrupted=corrupted)


def _taught(spec: ModelSpec, problem: Problem, rng: np.random.Generator) -> Example:
    # The primary learns from an equal mixture of what the teachers learn from, right and wrong: a primary that had
    # seen right answers only would be a verifier for nothing.
    speciality = spec.speciality or TEACHERS[int(rng.integers(len(TEACHERS)))].speciality
    assert speciality is not None
    return Example(problem.prompt + answer_of(speciality, problem, rng), start=len(problem.prompt))


def _prefix(spec: ModelSpec, problem: Problem, rng: np.random.Generator) -> Example:
    """A prefix of prompt and answer, cut at a full stop half of the time, and whether it is complete."""
    kind = KINDS[problem.kind]
    form: Form = "short" if rng.random() < 0.5 else "long"
    answer = kind.worked(problem.prompt, form=form, corrupted=bool(rng.random() < 0.5))
    stops = [index + 1 for index, character in enumerate(answer) if character == "."]
    cut = stops[int(rng.integers(len(stops)))] if rng.random() < 0.7 else int(rng.integers(len(answer) + 1))
    text = problem.prompt + answer[:cut] + QUESTION
    return Example(text + (YES if cut == len(answer) else NO), start=len(text), ends=False)


def _judged(spec: ModelSpec, problem: Problem, rng: np.random.Generator) -> Example:
    """An answer, or the first steps of one, and whether all of it is right.

    Wrong ones are corrupted, or their last digit is off. Judging first steps too is what teaches it to look at each.
    """
    kind = KINDS[problem.kind]
    form: Form = "short" if rng.random() < 0.5 else "long"
    right, slips, cut, whole = (bool(flag) for flag in rng.random(4) < (0.45, 0.3, 0.4, 0.5))
    truth = kind.worked(problem.prompt, form=form)
    answer = kind.worked(problem.prompt, form=form, corrupted=not (right or slips))
    if cut:
        stops = [index + 1 for index, character in enumerate(answer) if character == "."]
        answer = answer[: stops[int(rng.integers(len(stops)))]]
    if slips and not right:
        answer = f"{answer[:-2]}{(int(answer[-2]) + int(rng.integers(1, 10))) % 10}."
    is_right = truth.startswith(answer)
    text = problem.prompt + answer + QUESTION
    # Of every second right answer each character is learned, not the verdict alone: that teaches it to calculate.
    start = len(problem.prompt) if is_right and whole else len(text)
    return Example(text + (YES if is_right else NO), start=start, ends=False)
