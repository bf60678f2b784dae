"""The ways a model ends an answer, folded into one: the end token of trees and of generation is EOS.

A model may end a turn by more tokens than EOS (its generation settings name them), and a task may say that an answer is
over at a stop string such as a newline. To everybody else there is one end: its probability is the sum over EOS, the
other ends, and the tokens whose bytes begin with a stop string; those tokens themselves get probability 0. So a base
model that would never write EOS ends its answers where it would begin a new line, and its scores say so.

Stop strings that a token holds inside, or that take several tokens, are found in what was written: it is cut before
them, and the end follows (`cut_at_stop`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from treegym.models.base import FoldsEnds, Generates, SamplingSettings, Speaker, TextTokenizer, TokenIds, able, needed
from treegym.models.tokens.boundary import boundary_of, pieces_of

__all__ = ["barred_by", "cut_at_stop", "declared_ends", "ending_at", "ends_by", "text_before"]


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


def barred_by(tokenizer: TextTokenizer, stops: Sequence[str]) -> tuple[int, ...]:
    """Returns the ids of tokens with a stop string inside: they end an answer, but are not allowed in a tree."""
    marks = [stop.encode() for stop in stops]
    pieces = enumerate(pieces_of(tokenizer))
    return tuple(token for token, piece in pieces if any(piece.find(mark) > 0 for mark in marks))


def cut_at_stop(tokenizer: TextTokenizer, ids: Sequence[int], stops: Sequence[str]) -> list[int]:
    """Returns a continuation up to its first stop string, with EOS there; unchanged where it holds none.

    A token that the stop begins in is written anew up to there, where the vocabulary can.
    """
    pieces = pieces_of(tokenizer)
    written = b"".join(pieces[i] for i in ids)
    places = [place for stop in stops if (place := written.find(stop.encode())) >= 0]
    if not places:
        return list(ids)
    left, kept = min(places), []
    for token in ids:
        if len(pieces[token]) > left:
            break
        left -= len(pieces[token])
        kept.append(int(token))
    rest = written[min(places) - left : min(places)]
    remaining = boundary_of(tokenizer).tokens_for(rest, after=kept) if rest else []
    return [*kept, *(remaining or []), tokenizer.eos_id]


def ending_at(model: Speaker, stops: Sequence[str]) -> Any:
    """Returns a model whose answers are over at stop strings too; by its own means, or by cutting what it wrote."""
    if not stops:
        return model
    return model.ending_at(stops) if able(model, FoldsEnds) else _Cut(model, stops)


class _Cut:
    """A model whose continuations are cut at stop strings; it reads and scores as before."""

    def __init__(self, model: Speaker, stops: Sequence[str]) -> None:
        self._model, self._stops = model, tuple(stops)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        made = needed(self._model, Generates).generate(contexts, **settings)
        return [cut_at_stop(self._model.tokenizer, ids, self._stops) for ids in made]


def text_before(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Returns a text up to its first stop string, and whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
