"""The ways a model ends an answer, folded into one: the end token of trees and of generation is EOS.

A model may end a turn by more tokens than EOS (its generation settings name them), and a task may say that an answer is
over at a stop string such as a newline. To everybody else there is one end: its probability is the sum over EOS, the
other ends, and the tokens whose bytes begin with a stop string; those tokens themselves get probability 0. So a base
model that would never write EOS ends its answers where it would begin a new line, and its scores say so.

Stop strings that a token holds inside, or that take several tokens, are found in the text instead (`text_before`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treegym.models.base import TextTokenizer
from treegym.models.tokens.boundary import pieces_of

__all__ = ["declared_ends", "ends_by", "text_before"]


def declared_ends(generation: Any, tokenizer: TextTokenizer) -> tuple[int, ...]:
    """Returns the ids that end a text by a model's generation settings (may be None), the tokenizer's EOS first."""
    told = getattr(generation, "eos_token_id", None)
    others = [told] if isinstance(told, int) else list(told or [])
    known = [int(token) for token in others if 0 <= int(token) < tokenizer.vocab_size]
    return tuple(dict.fromkeys([tokenizer.eos_id, *known]))


def ends_by(tokenizer: TextTokenizer, stops: Sequence[str]) -> tuple[int, ...]:
    """Returns the ids of the tokens whose bytes begin with one of the stop strings."""
    marks = tuple(stop.encode() for stop in stops)
    return tuple(token for token, piece in enumerate(pieces_of(tokenizer)) if marks and piece.startswith(marks))


def text_before(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Returns a text up to its first stop string, and whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
