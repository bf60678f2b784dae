"""The character tokenizer of the bundled models: one token per character, an end and a padding."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from treegym.errors import DataError
from treegym.files import atomic_write
from treegym.untrusted import read_json

__all__ = ["CHARACTERS", "CharTokenizer"]

CHARACTERS = "0123456789+-*%=.?!,yn "
PAD, EOS = "<pad>", "<eos>"


class CharTokenizer:
    """Satisfies `TextTokenizer`: every character of the vocabulary is a token, special tokens decode to nothing."""

    def __init__(self, characters: str = CHARACTERS) -> None:
        if len(set(characters)) != len(characters) or not characters:
            raise DataError(f"a character vocabulary must hold each character once, not {characters[:80]!r}")
        self.characters = characters
        self.pad_id = 0
        self.eos_id = 1
        self.vocab_size = len(characters) + 2
        self._ids = {character: index + 2 for index, character in enumerate(characters)}

    def encode(self, text: str) -> list[int]:
        """Returns one id per character."""
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise DataError(
                f"the character {error.args[0]!r} in {text[:60]!r} is not in this model's vocabulary "
                f"({self.characters!r}); use a model whose tokenizer can express it"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids; special tokens are left out."""
        return "".join(self.characters[i - 2] for i in ids if i >= 2)

    def pieces(self) -> list[bytes]:
        """Returns the bytes of each token, empty for special tokens."""
        return [b"", b"", *(character.encode() for character in self.characters)]

    def fingerprint(self) -> str:
        """Returns a hash of the vocabulary."""
        return hashlib.blake2b(b"char\0" + self.characters.encode(), digest_size=16).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocabulary as JSON."""
        content = {
            "type": "char",
            "tokens": [PAD, EOS, *self.characters],
            "pad": PAD,
            "eos": EOS,
        }
        atomic_write(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CharTokenizer:
        """Reads a vocabulary written by `save`."""
        file = Path(path)
        try:
            content = read_json(file)
            tokens = content["tokens"]
            if content["type"] != "char" or tokens[:2] != [content["pad"], content["eos"]]:
                raise ValueError("type must be 'char', and the pad and end tokens must come first")
            if not all(isinstance(token, str) and len(token) == 1 for token in tokens[2:]):
                raise ValueError("every token must be one character")
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError) and "cannot be read" in str(error):
                raise
            raise DataError(f"{file}: not a character vocabulary: {error}") from error
        return cls("".join(tokens[2:]))
