"""Whether a text gives the reference answer: the one matcher of every room.

A rule first finds what a text gives as its answer, by a named extractor, and then compares: numbers by value (thousands
separators, currency signs and units are looked through; "twelve" is 12), other texts without regard to case, spaces and
punctuation at the ends. Extractors that take an argument have it after a colon: ``after:Answer:``,
``json:result.value``.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from treegym.errors import ConfigError, suggest
from treegym.rewards.matching import NUMBER, BoundedRegex, to_number
from treegym.rewards.number_words import in_figures

__all__ = ["EXTRACTORS", "AnswerRule", "agrees", "majority", "stated_answer"]

LONGEST = 100_000  # characters of a text that are looked at
_MARKER = re.compile(r"####|\\boxed\{|(?:final\s+)?answer\s*(?:is|:|=)|=|:", re.IGNORECASE)
_TRIM = " \t\r\n.,;!?}$*`\"'"
_CHOICE = re.compile(r"(?<![A-Za-z0-9'])(?:\(([A-J])\)|([A-J])(?:[):.]|\s*\Z))")  # not the words "a" and "I"
_CHOSEN = re.compile(r"(?:answer|choice|option)\s*(?:is|:|=)?\s*\(?([A-J])(?![A-Za-z])", re.IGNORECASE)
# a number with at most a sign of currency before it and a unit without digits behind it
_MEASURE = re.compile(rf"[^\w\s+\-.]?\s*({NUMBER.pattern})\s*([^\d]{{0,30}})")


def plain(text: str) -> str:
    """Returns a text without what comparisons look through: case, repeated spaces, punctuation at its ends."""
    return " ".join(text.split()).strip(_TRIM).casefold()


def stated_answer(text: str) -> str:
    """Returns what a text states as its answer: what follows its last "=", ":" or "answer is"; without one, all."""
    rest = text
    for match in _MARKER.finditer(text):
        if plain(text[match.end() :]):
            rest = text[match.end() :]
    return plain(rest)


def agrees(text: str, answer: str) -> bool:
    """Returns whether a text, or what it states as its answer, equals the reference, numbers by value.

    A worked reference counts by what follows its "####".
    """
    wanted = answer.rsplit("####", 1)[-1]
    return any(_same(given, wanted) for given in (text, stated_answer(text)))


# ---------------------------------------------------------------- extractors: text, argument -> the answer or None


def _whole(text: str, _: str) -> str | None:
    return text


def _stated(text: str, _: str) -> str | None:
    return stated_answer(text)


def _first_line(text: str, _: str) -> str | None:
    return next((line for line in text.splitlines() if line.strip()), None)


def _last_line(text: str, _: str) -> str | None:
    return next((line for line in reversed(text.splitlines()) if line.strip()), None)


def _first_number(text: str, _: str) -> str | None:
    found = NUMBER.search(text)
    return None if found is None else found[0].rstrip(".,")


def _last_number(text: str, _: str) -> str | None:
    found = None
    for match in NUMBER.finditer(text):
        found = match[0].rstrip(".,")
    return found


def _boxed(text: str, _: str) -> str | None:
    """What stands in the last ``\\boxed{...}``, braces inside it balanced."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None


def _after(text: str, marker: str) -> str | None:
    place = text.rfind(marker)
    return None if place < 0 else text[place + len(marker) :].split("\n", 1)[0]


def _choice(text: str, _: str) -> str | None:
    """The letter A to J that the text settles on: the last "answer is X", else the first letter that stands alone."""
    chosen = [match[1].upper() for match in _CHOSEN.finditer(text)]
    alone = _CHOICE.search(text)
    return chosen[-1] if chosen else None if alone is None else alone[1] or alone[2]


def _json_field(text: str, path: str) -> str | None:
    """A field of the last JSON object in the text."""
    decoder, found = json.JSONDecoder(), None
    place = text.find("{")
    while place >= 0:
        try:
            found, length = decoder.raw_decode(text[place:])
            place = text.find("{", place + length)
        except (ValueError, RecursionError):
            place = text.find("{", place + 1)
    value: Any = found
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value if isinstance(value, str) else json.dumps(value)


def _regex(text: str, pattern: str) -> str | None:
    return _bounded(pattern).find(text)


@cache
def _bounded(pattern: str) -> BoundedRegex:
    return BoundedRegex(pattern)


EXTRACTORS: dict[str, tuple[Callable[[str, str], str | None], bool, str]] = {  # function, takes an argument, help
    "stated": (_stated, False, 'what follows the last "=", ":" or "answer is", or the whole text'),
    "whole": (_whole, False, "the whole text"),
    "contains": (_whole, False, "the reference occurs in the text, as whole words"),
    "first-line": (_first_line, False, "the first line that is not empty"),
    "last-line": (_last_line, False, "the last line that is not empty"),
    "first-number": (_first_number, False, "the first number"),
    "last-number": (_last_number, False, "the last number"),
    "boxed": (_boxed, False, "what stands in the last \\boxed{}"),
    "choice": (_choice, False, "the letter A to J that is chosen"),
    "after": (_after, True, "what follows the last occurrence of a marker, up to the end of its line"),
    "json": (_json_field, True, "a field of the last JSON object, such as json:answer.value"),
    "regex": (_regex, True, "the first group of a regular expression, or its match, within a time bound"),
}


# ---------------------------------------------------------------- comparing


def _measure(text: str) -> tuple[float, str] | None:
    """Returns value and unit of a text that is one number, else None."""
    match = _MEASURE.fullmatch(plain(text))
    if match is None:
        written = in_figures(plain(text))
        return None if written is None else (float(written), "")
    value = to_number(match[1])
    return None if value is None else (value, plain(match[2]))


def _same(given: str, wanted: str) -> bool:
    if plain(given) == plain(wanted):
        return True
    a, b = _measure(given), _measure(wanted)
    if a is None or b is None or (a[1] and b[1] and a[1] != b[1]):
        return False
    return math.isclose(a[0], b[0], rel_tol=1e-9, abs_tol=1e-9)


@dataclass(frozen=True)
class AnswerRule:
    """What counts as the right answer.

    Attributes:
        extract: how the answer is found in a text, one of `EXTRACTORS`.
        cut_counts: whether an answer that was cut at the limit of tokens may be right; else it had to come to its end.
    """

    extract: str = "stated"
    cut_counts: bool = False

    def __post_init__(self) -> None:
        name, _, argument = self.extract.partition(":")
        if name not in EXTRACTORS:
            raise ConfigError(f"there is no way to extract answers called {name!r}.{suggest(name, EXTRACTORS)}")
        if EXTRACTORS[name][1] != bool(argument):
            expected = "an argument after a colon" if EXTRACTORS[name][1] else "no argument"
            raise ConfigError(f"extract is {self.extract!r}, but {name} takes {expected}: {EXTRACTORS[name][2]}")
        if name == "regex":
            _bounded(argument)  # refuses what is not a regular expression

    def given(self, text: str) -> str | None:
        """Returns the answer that a text gives, None where there is none."""
        name, _, argument = self.extract.partition(":")
        return EXTRACTORS[name][0](text[-LONGEST:], argument)

    def right(self, text: str, reference: str) -> bool:
        """Returns whether a text gives the reference answer; a worked reference counts by what follows its "####"."""
        wanted = reference.rsplit("####", 1)[-1].strip()
        if self.extract == "stated":
            return agrees(text, reference)
        given = self.given(text)
        if given is None:
            return False
        if self.extract == "contains":
            return re.search(rf"(?<!\w){re.escape(plain(wanted))}(?!\w)", plain(given)) is not None
        return _same(given, wanted)


def majority(answers: Sequence[str | None]) -> int | None:
    """Returns the place of the first answer of the largest group of equal ones, None where none was given."""
    keys = [None if answer is None else _key(answer) for answer in answers]
    counted = Counter(key for key in keys if key is not None)
    if not counted:
        return None
    best = max(counted.values())
    return next(place for place, key in enumerate(keys) if key is not None and counted[key] == best)


def _key(answer: str) -> str:
    measure = _measure(answer)
    return plain(answer) if measure is None else repr(measure[0])
