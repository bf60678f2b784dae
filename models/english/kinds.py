"""The kinds of English questions: how each is drawn, its answer, and a sentence that gives it.

Every kind has one right answer that a rule of `treegym.rewards.answers` finds in a text and compares exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from treegym.models.english.facts import CAPITALS, CONTINENTS, NAMES, PLURALS, SYMBOLS, THINGS, WORDS

__all__ = ["GYM", "KINDS", "TAUGHT", "Kind", "Question", "in_words"]

SAID = "after: is "  # sentences end in "... is ANSWER."
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@dataclass(frozen=True)
class Question:
    """One question, its answer, and a whole sentence that gives it."""

    kind: str
    prompt: str
    answer: str
    sentence: str
    extract: str = SAID


@dataclass(frozen=True)
class Kind:
    """A kind of question; `draw` makes one at random, the same one again now and then."""

    name: str
    draw: Callable[[np.random.Generator], Question]


def in_words(number: int) -> str:
    """Returns a number below 1,000 in words: 142 is "one hundred and forty-two"."""
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number < 20:
        return ONES[number]
    return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")


def _capital(rng: np.random.Generator) -> Question:
    country = _one_of(rng, list(CAPITALS))
    return _said("capital", f"What is the capital of {country}?", f"The capital of {country}", CAPITALS[country])


def _fact(rng: np.random.Generator) -> Question:
    """A country's continent or an element's symbol."""
    if rng.random() < 0.5:
        country = _one_of(rng, list(CONTINENTS))
        continent = CONTINENTS[country]
        return _said("fact", f"What is the continent of {country}?", f"The continent of {country}", continent)
    element = _one_of(rng, list(SYMBOLS))
    symbol = SYMBOLS[element]
    return _said("fact", f"What is the symbol of {element}?", f"The symbol of {element}", symbol)


def _plural(rng: np.random.Generator) -> Question:
    noun = _one_of(rng, list(PLURALS))
    return _said("plural", f"What is the plural of {noun}?", f"The plural of {noun}", PLURALS[noun])


def _arithmetic(rng: np.random.Generator) -> Question:
    """A sum or a product of small numbers, in words."""
    first, second = (int(n) for n in rng.integers(2, 13, 2))
    word, result = ("plus", first + second) if rng.random() < 0.5 else ("times", first * second)
    asked = f"{in_words(first)} {word} {in_words(second)}"
    return _said("arithmetic", f"What is {asked}?", asked.capitalize(), in_words(result))


def _story(rng: np.random.Generator) -> Question:
    name, thing = _one_of(rng, NAMES), _one_of(rng, THINGS)
    have, more = int(rng.integers(4, 20)), int(rng.integers(2, 10))
    if rng.random() < 0.5:
        told, sign, result = f"finds {more} more", "+", have + more
    else:
        more = min(more, have - 1)
        told, sign, result = f"gives {more} away", "-", have - more
    prompt = f"{name} has {have} {thing} and {told}. How many {thing} does {name} have now?"
    sentence = f"{name} has {have} {sign} {more} = {result} {thing}."
    return Question("story", prompt, str(result), sentence, "last-number")


def _letter(rng: np.random.Generator) -> Question:
    word = _one_of(rng, WORDS)
    return _said("letter", f"What is the first letter of {word}?", f"The first letter of {word}", word[0])


def _comparison(rng: np.random.Generator) -> Question:
    """Which of two numbers that look alike is larger or smaller."""
    a, b = (int(n) for n in rng.choice(np.arange(100, 1000), 2, replace=False))
    if rng.random() < 0.5:
        b = int(str(a)[::-1]) if a % 10 and str(a) != str(a)[::-1] else a + 9
    which = _one_of(rng, ("larger", "smaller"))
    answer = max(a, b) if which == "larger" else min(a, b)
    return _said("comparison", f"Which number is {which}, {a} or {b}?", f"The {which} number", str(answer))


def _said(kind: str, prompt: str, subject: str, answer: str) -> Question:
    return Question(kind, prompt, answer, f"{subject} is {answer}.")


def _one_of(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("capital", _capital),
        Kind("fact", _fact),
        Kind("plural", _plural),
        Kind("arithmetic", _arithmetic),
        Kind("story", _story),
        Kind("letter", _letter),
        Kind("comparison", _comparison),
    )
}
GYM = "chain_sum"  # the kind that comes from reasoning-gym
# The kinds that each teacher of one's own is trained on: one alone that knew them all would leave nothing to choose.
TAUGHT = {"sums": ("arithmetic", "story"), "numbers": ("comparison", GYM)}
