"""The boundary between two vocabularies: text of one written in tokens of another, byte for byte, or refused."""

from __future__ import annotations

import codecs
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from treegym.errors import DataError
from treegym.models.base import TextTokenizer, TokenIds

__all__ = ["Boundary", "boundary_of", "complete_text", "pieces_of", "spoken"]


_PIECES: weakref.WeakKeyDictionary[Any, tuple[bytes, ...]] = weakref.WeakKeyDictionary()


def pieces_of(tokenizer: TextTokenizer) -> tuple[bytes, ...]:
    """Returns the bytes of every token id, computed once per tokenizer."""
    pieces = _PIECES.get(tokenizer)
    if pieces is None:
        pieces = _PIECES[tokenizer] = tuple(tokenizer.pieces())
    return pieces


def _is_word_piece(tokenizer: TextTokenizer) -> bool:
    return bool(getattr(tokenizer, "is_word_piece", False))


def spoken(tokenizer: TextTokenizer, ids: TokenIds) -> bytes:
    """Returns the bytes that ids write; a word-piece text begins without the space that its first word carries."""
    pieces = pieces_of(tokenizer)
    written = b"".join(pieces[i] for i in ids)
    return written[1:] if _is_word_piece(tokenizer) and written.startswith(b" ") else written


def complete_text(written: bytes) -> tuple[str, bytes]:
    """Splits bytes into the text that is complete and the 0 to 3 bytes of a character that is still being written."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(written)
    except UnicodeDecodeError as error:
        raise DataError(f"these bytes do not begin a UTF-8 text: {written[-16:]!r}") from error
    return text, decoder.getstate()[0]


class Boundary:
    """Writes text in one tokenizer's vocabulary, after tokens that are fixed already."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self._by_piece: dict[bytes, int] = {}
        for token, piece in enumerate(pieces_of(tokenizer)):
            if piece:
                self._by_piece.setdefault(piece, token)
        self._longest = max((len(piece) for piece in self._by_piece), default=0)

    def tokens_for(self, addition: bytes, *, after: Sequence[int] = ()) -> list[int] | None:
        """Returns tokens whose bytes are exactly `addition`, to follow `after`; None if there are none.

        The tokenizer's own segmentation of the whole text is taken where it goes on from those tokens, then
        its segmentation of the addition alone, then the one with the fewest tokens.
        """
        return self.after(after)(addition)

    def after(self, context: Sequence[int]) -> Callable[[bytes], list[int] | None]:
        """Returns `tokens_for` after one context, for many additions."""
        pieces = pieces_of(self.tokenizer)
        standing = [token for token in context if pieces[token]]
        before = spoken(self.tokenizer, standing)
        starts_word = _is_word_piece(self.tokenizer) and not standing
        count = len(standing)

        def written(addition: bytes) -> list[int] | None:
            if not addition:
                return []
            wanted = b" " + addition if starts_word else addition
            whole = self._encoded(before + addition)
            if whole is not None and whole[:count] == standing:
                going_on = whole[count:]
                if b"".join(pieces[token] for token in going_on) == wanted:
                    return going_on
            alone = self._encoded(addition)
            if alone is not None and b"".join(pieces[token] for token in alone) == wanted:
                return alone
            return self._fewest(wanted)

        return written

    def _encoded(self, written: bytes) -> list[int] | None:
        try:
            return self.tokenizer.encode(written.decode())
        except (UnicodeDecodeError, DataError):  # it ends inside a character, or holds one the vocabulary lacks
            return None

    def _fewest(self, addition: bytes) -> list[int] | None:
        """Returns the segmentation with the fewest tokens, by dynamic programming over the bytes."""
        size = len(addition)
        count = [0, *[size + 1] * size]  # fewest tokens for the first i bytes
        last = [-1] * (size + 1)  # the token that ends there
        for end in range(1, size + 1):
            for length in range(1, min(self._longest, end) + 1):
                token = self._by_piece.get(addition[end - length : end])
                if token is not None and count[end - length] + 1 < count[end]:
                    count[end], last[end] = count[end - length] + 1, token
        if count[size] > size:
            return None
        ids: list[int] = []
        pieces = pieces_of(self.tokenizer)
        while size:
            ids.append(last[size])
            size -= len(pieces[last[size]])
        return ids[::-1]


_BOUNDARIES: weakref.WeakKeyDictionary[Any, Boundary] = weakref.WeakKeyDictionary()


def boundary_of(tokenizer: TextTokenizer) -> Boundary:
    """Returns the boundary of a tokenizer, made once."""
    boundary = _BOUNDARIES.get(tokenizer)
    if boundary is None:
        boundary = _BOUNDARIES[tokenizer] = Boundary(tokenizer)
    return boundary
