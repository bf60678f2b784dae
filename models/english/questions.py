"""The questions of the English tree, and what its taught teacher practises on: never one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from treegym.errors import require
from treegym.models.english.forms import EXAMPLES
from treegym.models.english.kinds import KINDS, Question

__all__ = ["COUNTS", "TAUGHT", "practice", "questions"]

COUNTS = {"train": 50, "validation": 13, "test": 15}  # questions of each kind
TAUGHT = ("arithmetic", "story")  # the kinds that the teacher of one's own is trained on
GYM = "chain_sum"  # the kind that comes from reasoning-gym
SHOWN = {prompt for prompt, _ in EXAMPLES.values()}


def questions(seed: int = 0) -> list[tuple[str, Question]]:
    """Returns the questions of the tree with their splits, all different, the kinds in turn within a split."""
    drawn = {
        name: _different(name, sum(COUNTS.values()), np.random.default_rng((seed, number)))
        for number, name in enumerate(KINDS)
    }
    drawn[GYM] = _gym(sum(COUNTS.values()), seed)
    found, start = [], 0
    for split, count in COUNTS.items():
        found += [(split, rows[place]) for place in range(start, start + count) for rows in drawn.values()]
        start += count
    return found


def practice(seed: int = 0) -> Iterator[Question]:
    """Yields questions of the taught kinds in turn, without end, none of which is in the tree."""
    held_out = {question.prompt for _, question in questions(seed)} | SHOWN
    rng = np.random.default_rng((seed, len(KINDS)))
    while True:
        for name in TAUGHT:
            question = KINDS[name].draw(rng)
            while question.prompt in held_out:
                question = KINDS[name].draw(rng)
            yield question


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
