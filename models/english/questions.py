"""The questions of the English tree, and what its taught teacher practises on: never one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from treegym.errors import require
from treegym.models.english.forms import EXAMPLES
from treegym.models.english.kinds import KINDS, Question

__all__ = ["BLOCK", "PLACES", "TAUGHT", "fitted_on", "practice", "questions"]

DRAWN = 78  # questions of each kind: 50 to train on, 13 to validate, 15 to test
# Of these the tree takes so many, in blocks of three as they are grown; the others are for a larger tree.
PLACES = {"train": (0, 3, 6, 15, 18, 21, 30, 39), "validation": (51,), "test": (69, 72, 75)}
BLOCK = 3
FITTED = 32  # questions of each kind on which contexts' components are fitted, whichever of them are grown
TAUGHT = ("arithmetic", "story")  # the kinds that the teacher of one's own is trained on
GYM = "chain_sum"  # the kind that comes from reasoning-gym
SHOWN = {prompt for prompt, _ in EXAMPLES.values()}


def questions(seed: int = 0) -> list[tuple[str, Question]]:
    """Returns the questions of the tree with their splits, all different, the kinds in turn within a split."""
    drawn = _drawn(seed)
    return [
        (split, rows[first + place])
        for split, blocks in PLACES.items()
        for first in blocks
        for place in range(BLOCK)
        for rows in drawn.values()
    ]


def fitted_on(seed: int = 0) -> list[str]:
    """Returns the prompts on which the components that describe contexts are fitted."""
    drawn = _drawn(seed)
    return [rows[place].prompt for place in range(FITTED) for rows in drawn.values()]


def practice(seed: int = 0) -> Iterator[Question]:
    """Yields questions of the taught kinds in turn, without end, none of which is in the tree."""
    held_out = {question.prompt for rows in _drawn(seed).values() for question in rows} | SHOWN
    rng = np.random.default_rng((seed, len(KINDS)))
    while True:
        for name in TAUGHT:
            question = KINDS[name].draw(rng)
            while question.prompt in held_out:
                question = KINDS[name].draw(rng)
            yield question


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
