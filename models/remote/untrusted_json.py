"""Reading JSON that strangers sent: bounded, without NaN, and every field checked before it is believed."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from treegym.errors import BackendError

__all__ = ["MalformedAnswer", "field", "logprob", "parse"]

SLACK = 1e-3  # how far above zero rounding may lift a log-probability
FLOOR = -1e4  # what stands for minus infinity, which JSON cannot say


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
        raise MalformedAnswer(f"a log-probability is missing: {str(value)[:60]!r} stands in its place")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number) or number > SLACK:
        raise MalformedAnswer(f"a log-probability is {number}; it must be a number not above 0")
    return min(0.0, max(number, FLOOR))
