"""The questions of the English tree, and what its taught teachers practise on: never one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from treegym.errors import require
from treegym.models.english.forms import EXAMPLES
from treegym.models.english.kinds import GYM, KINDS, Question

__all__ = ["SPLITS", "fitted_on", "practice", "questions"]

SPLITS = {"train": 50, "validation": 13, "test": 15}  # questions of each kind
DRAWN = sum(SPLITS.values())
FITTED = 32  # questions of each kind on which contexts' components are fitted, however many are grown
PRACTISED = 50  # sums of reasoning-gym to train on
SHOWN = {prompt for prompt, _ in EXAMPLES.values()}


def questions(seed: int = 0) -> list[tuple[str, Question]]:
    """Returns the questions of the tree with their splits, all different, the kinds in turn within a split."""
    drawn = _drawn(seed)
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    return [(split, rows[place]) for place, split in enumerate(splits) for rows in drawn.values()]


def fitted_on(seed: int = 0) -> list[str]:
    """Returns the prompts on which the components that describe contexts are fitted."""
    drawn = _drawn(seed)
    return [rows[place].prompt for place in range(FITTED) for rows in drawn.values()]


def practice(kinds: Sequence[str], seed: int = 0) -> Iterator[Question]:
    """Yields questions of some kinds in turn, without end, none of which is in the tree."""
    held_out = {question.prompt for rows in _drawn(seed).values() for question in rows} | SHOWN
    rng = np.random.default_rng((seed, len(KINDS)))
    sums = _gym(DRAWN + PRACTISED, seed)[DRAWN:] if GYM in kinds else []
    while True:
        for name in kinds:
            question = _one(name, rng, sums)
            while question.prompt in held_out:
                question = _one(name, rng, sums)
            yield question


def _one(name: str, rng: np.random.Generator, sums: list[Question]) -> Question:
    return sums[int(rng.integers(len(sums)))] if name == GYM else KINDS[name].draw(rng)


def _drawn(seed: int) -> dict[str, list[Question]]:
    """Returns so many questions of each kind."""
    drawn = {name: _different(name, DRAWN, np.random.default_rng((seed, number))) for number, name in enumerate(KINDS)}
    return drawn | {GYM: _gym(DRAWN, seed)}


def _different(name: str, count: int, rng: np.random.Generator) -> list[Question]:
    found: dict[str, Question] = {}
    while len(found) < count:
        question = KINDS[name].draw(rng)
        if question.prompt not in SHOWN:
            found.setdefault(question.prompt, question)
    return list(found.values())


def _gym(count: int, seed: int) -> list[Question]:
    """Returns sums and differences, none below zero, of reasoning-gym (Apache 2.0), in its own words."""
    library = require("reasoning_gym", extra="prompts", purpose="the questions of English that come from it")
    options = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    found: dict[str, Question] = {}
    for entry in library.create_dataset(GYM, seed=seed, size=20 * count, **options):
        prompt, answer = str(entry["question"]), str(entry["answer"])
        [task] = re.findall(r"[-+*\d ]+(?= =)", prompt)
        if prompt in SHOWN or answer.startswith("-"):
            continue
        found.setdefault(prompt, Question(GYM, prompt, answer, f"{task.strip()} = {answer}.", "last-number"))
        if len(found) == count:
            break
    assert len(found) == count, f"reasoning-gym gives {len(found)} different questions, {count} are needed"
    return list(found.values())
