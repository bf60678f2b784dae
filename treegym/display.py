"""Texts of models and strangers, made safe to show: on terminals, in tables of Markdown, in CSV files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["csv_cell", "curve", "markdown_cell", "plain", "say"]

# Control characters (C0 but for the line feed, DEL, C1), marks that turn the direction of writing, half pairs.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")


def plain(text: object, *, lines: bool = False) -> str:
    """Returns a text whose control characters are written out (``\\x1b``), so that no terminal obeys them.

    Args:
        text: anything; shown as ``str`` has it.
        lines: whether line feeds stay.
    """
    shown = _CONTROL.sub(_written_out, str(text))
    return shown if lines else shown.replace("\n", "\\n")


def say(text: object = "", **options: Any) -> None:
    """Prints a text as `plain` has it, line feeds kept; takes the options of ``print``."""
    print(plain(text, lines=True), **options)


def curve(values: Sequence[float], *, width: int = 40) -> str:
    """Returns the last `width` values as a line of bars, from the least of them to the greatest."""
    shown = values[-width:]
    low, high = min(shown), max(shown)
    return "".join(_BARS[round((value - low) / (high - low) * 7) if high > low else 3] for value in shown)


def markdown_cell(text: object) -> str:
    """Returns a text as a cell of a Markdown table: it ends neither the cell nor the table, and formats nothing."""
    return _MARKUP.sub(r"\\\1", plain(text))


def csv_cell(text: object) -> str:
    """Returns a text as a CSV cell that no spreadsheet takes for a formula: an apostrophe goes before those."""
    shown = plain(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return {"\t": "\\t", "\r": "\\r"}.get(found[0], f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
