"""What a server answered, checked before it is believed: bounded JSON, and tokens by id, by bytes or by name.

JSON that strangers sent is read without NaN and within bounds, and every field is checked. Tokens come in two forms:
the completions form (``tokens``, ``token_logprobs``, ``top_logprobs``: parallel lists) and the newer one (``content``:
a list of objects). They are named ``token_id:7`` when the server can be asked to, else by their text, which not every
token has to itself.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from treegym.errors import BackendError
from treegym.models.base import TextTokenizer

__all__ = ["UNKNOWN", "Choice", "MalformedAnswer", "Vocabulary", "field", "logprob", "parse", "read_choices"]

SLACK = 1e-3  # how far above zero rounding may lift a log-probability
FLOOR = -1e4  # in place of minus infinity, which JSON cannot say


class MalformedAnswer(BackendError):
    """An answer that is not what the protocol promises; asking again may help, believing it would not."""


def _refuse(name: str) -> NoReturn:
    raise MalformedAnswer(f"the answer holds {name}, which is not JSON")


def parse(raw: bytes) -> dict[str, Any]:
    """Returns the JSON object in `raw`; anything else raises `MalformedAnswer`."""
    if raw.count(b"[") + raw.count(b"{") > len(raw) // 12 + 64:  # each takes many times its size when it is read
        raise MalformedAnswer("the answer is nearly nothing but lists and objects; no model answers so")
    try:
        value = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        start = raw[:80].decode("utf-8", "replace")
        raise MalformedAnswer(f"the answer is not JSON: it begins with {start!r} ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise MalformedAnswer(f"the answer is a JSON {type(value).__name__}, not an object")
    return value


def field(container: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """Returns ``container[name]`` if it is of `kind`; booleans never pass for numbers."""
    if not isinstance(container, dict) or name not in container:
        raise MalformedAnswer(f"the answer lacks the field {name!r}")
    value = container[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise MalformedAnswer(f"the field {name!r} is {str(value)[:60]!r}, which is of the wrong type")
    return value


def logprob(value: Any) -> float:
    """Returns a log-probability, at most 0 and finite, or raises."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedAnswer(f"a log-probability is missing: {str(value)[:60]!r} came in its place")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number) or number > SLACK:
        raise MalformedAnswer(f"a log-probability is {number}; it must be a number not above 0")
    return min(0.0, max(number, FLOOR))


UNKNOWN = -1
_BY_ID = re.compile(r"token_id:(\d{1,9})")
_BY_BYTES = re.compile(r"bytes:((?:\\x[0-9a-fA-F]{2})+)")


class Vocabulary:
    """Which id a name means; names that fit several tokens mean none."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.size = tokenizer.vocab_size
        self.eos_id = tokenizer.eos_id
        seen: dict[bytes, int] = {}
        for token, piece in enumerate(tokenizer.pieces()):
            if piece:
                seen[piece] = UNKNOWN if piece in seen else token
        self._by_bytes = seen

    def of_text(self, name: str) -> int:
        """Returns the token a server's name for it means."""
        if match := _BY_ID.fullmatch(name):
            return self.of_id(int(match[1]))
        if name == "":
            return self.eos_id  # how servers write special tokens that they do not print
        if match := _BY_BYTES.fullmatch(name):
            return self._by_bytes.get(bytes.fromhex(match[1].replace("\\x", "")), UNKNOWN)
        return self._by_bytes.get(name.encode("utf-8", "replace"), UNKNOWN)

    def of_id(self, number: Any) -> int:
        """Returns a token id that the server gave as a number, or raises if there is no such token."""
        if type(number) is not int or not 0 <= number < self.size:
            raise MalformedAnswer(
                f"the server names a token {number!r:.40}, but the vocabulary ends at {self.size - 1}"
            )
        return number

    def of_object(self, entry: dict[str, Any]) -> int:
        """Returns the token of an object of the newer form: by its id, else its bytes, else its text."""
        if "id" in entry:
            return self.of_id(entry["id"])
        raw = entry.get("bytes")
        if isinstance(raw, list) and raw and all(type(byte) is int and 0 <= byte < 256 for byte in raw):
            known = self._by_bytes.get(bytes(raw), UNKNOWN)
            if known != UNKNOWN:
                return known
        return self.of_text(field(entry, "token", str))


@dataclass(frozen=True)
class Choice:
    """One continuation: what was said, and per position the token, its log-probability and the likeliest others."""

    text: str
    finish_reason: str
    token_ids: list[int] | None  # as the server gives them outright
    tokens: list[int]  # by the log-probabilities' names; UNKNOWN where a name fits no token
    logprobs: list[float | None]  # None at the very first token of an echoed prompt
    tops: list[dict[int, float]]


def read_choices(answer: dict[str, Any], expected: int, vocabulary: Vocabulary) -> list[Choice]:
    """Returns the choices in the order of the prompts."""
    raw = field(answer, "choices", list)
    if len(raw) != expected:
        raise MalformedAnswer(f"{expected} prompts were asked and {len(raw)} answered")
    places = [_object(entry).get("index", place) for place, entry in enumerate(raw)]
    entries = {place: entry for place, entry in zip(places, raw, strict=True) if type(place) is int}
    if any(place not in entries for place in range(expected)):
        raise MalformedAnswer(f"the answers' indices are {str(places)[:80]}, not 0 to {expected - 1}")
    return [_read_choice(entries[place], vocabulary) for place in range(expected)]


def _read_choice(entry: dict[str, Any], vocabulary: Vocabulary) -> Choice:
    text = entry.get("text")
    reason = entry.get("finish_reason")
    ids = entry.get("token_ids")
    if text is not None and not isinstance(text, str):
        raise MalformedAnswer(f"a choice's text is {str(text)[:60]!r}")
    if ids is not None:
        if not isinstance(ids, list):
            raise MalformedAnswer(f"a choice's token_ids are {str(ids)[:60]!r}")
        ids = [vocabulary.of_id(number) for number in ids]
    tokens, logprobs, tops = _read_logprobs(entry.get("logprobs"), vocabulary)
    return Choice(text or "", reason if isinstance(reason, str) else "unknown", ids, tokens, logprobs, tops)


def _read_logprobs(table: Any, vocabulary: Vocabulary) -> tuple[list[int], list[float | None], list[dict[int, float]]]:
    """Returns tokens, their log-probabilities and the likeliest others of every position; empty without any."""
    if table is None:
        return [], [], []
    if isinstance(table, dict) and table.get("content") is not None:
        entries = field(table, "content", list)
        tokens = [vocabulary.of_object(_object(entry)) for entry in entries]
        logprobs: list[float | None] = [logprob(entry.get("logprob")) for entry in entries]
        tops = [_top_of_objects(entry.get("top_logprobs") or [], vocabulary) for entry in entries]
        return tokens, logprobs, tops
    names = field(table, "tokens", list)
    values = field(table, "token_logprobs", list)
    given = table.get("top_logprobs")
    rows = given if given is not None else [None] * len(names)
    if not isinstance(rows, list) or not len(names) == len(values) == len(rows):
        raise MalformedAnswer("tokens, token_logprobs and top_logprobs differ in length")
    if not all(isinstance(name, str) for name in names):
        raise MalformedAnswer("a token's name is not text")
    tokens = [vocabulary.of_text(name) for name in names]
    logprobs = [None if place == 0 and value is None else logprob(value) for place, value in enumerate(values)]
    return tokens, logprobs, [_top_of_table(row, vocabulary) for row in rows]


def _object(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise MalformedAnswer(f"an object was expected, not {str(entry)[:60]!r}")
    return entry


def _top_of_table(row: Any, vocabulary: Vocabulary) -> dict[int, float]:
    if row is None:
        return {}
    if not isinstance(row, dict):
        raise MalformedAnswer(f"a position's top_logprobs are {str(row)[:60]!r}")
    top = {vocabulary.of_text(name): logprob(value) for name, value in row.items()}
    top.pop(UNKNOWN, None)
    return top


def _top_of_objects(row: Any, vocabulary: Vocabulary) -> dict[int, float]:
    if not isinstance(row, list):
        raise MalformedAnswer(f"a position's top_logprobs are {str(row)[:60]!r}")
    top = {vocabulary.of_object(_object(entry)): logprob(entry.get("logprob")) for entry in row}
    top.pop(UNKNOWN, None)
    return top
