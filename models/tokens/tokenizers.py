"""Tokenizers of any origin behind one narrow interface: Hugging Face's, and the bundled character tokenizer."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from treegym.errors import ConfigError, DataError
from treegym.models.base import TextTokenizer, TokenIds
from treegym.untrusted import read_json

__all__ = ["HuggingFaceTokenizer", "byte_characters", "load_tokenizer", "prefix_ids"]

LARGE = 2**20  # bytes of a tokenizer.json from which on it cannot be a character vocabulary, and is parsed once only
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """Returns the inverse of the map by which byte-level BPE writes bytes as printable characters.

    Printable Latin-1 bytes are written as themselves; the others, in order, as the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


@functools.cache
def byte_characters() -> dict[int, str]:
    """Returns the printable character that byte-level BPE writes each byte as."""
    return {byte: character for character, byte in _byte_of_character().items()}


class HuggingFaceTokenizer:
    """Adapts a fast tokenizer of `transformers` to `TextTokenizer`, and knows the bytes of every token."""

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(
                f"{type(tokenizer).__name__} has no fast form (tokenizer.json); convert it with transformers first"
            )
        self.hf = tokenizer
        backend = tokenizer.backend_tokenizer
        limited = backend.truncation is not None or backend.padding is not None
        self._as_read = backend.to_str() if limited else None  # they are part of the rules, but apply to no text here
        backend.no_truncation()
        backend.no_padding()
        decoder = backend.decoder
        self._decoders: Any = None if decoder is None else json.loads(decoder.__getstate__())
        self.vocab_size = len(tokenizer)
        eos = tokenizer.eos_token_id
        eos = eos if eos is not None else tokenizer.sep_token_id
        if eos is None:
            raise ConfigError("the tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json")
        self.eos_id = int(eos)
        self.pad_id = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos)
        self.special_ids = frozenset(int(i) for i in tokenizer.all_special_ids)
        begin = tokenizer.encode("", add_special_tokens=True)
        self.prefix_ids = tuple(int(i) for i in begin if i != self.eos_id)  # what begins every text, such as BOS

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.hf.backend_tokenizer.encode(text, add_special_tokens=False).ids
        unknown = self.hf.unk_token_id
        if unknown is not None and unknown in ids and unknown != self.eos_id:
            raise DataError(f"the vocabulary cannot express {text[:60]!r}; use a model whose tokenizer can")
        return ids

    def decode(self, ids: TokenIds) -> str:
        kept = [int(i) for i in ids]
        return self.hf.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @property
    def is_word_piece(self) -> bool:
        return (self._decoders or {}).get("type") == "WordPiece"

    def pieces(self) -> list[bytes]:
        return list(self._pieces)

    @functools.cached_property
    def _pieces(self) -> list[bytes]:
        decoders = _decoder_types(self._decoders)
        words = self.hf.convert_ids_to_tokens(list(range(self.vocab_size)))
        added = {int(i) for i in self.hf.added_tokens_decoder}
        return [
            b"" if i in self.special_ids or word is None else _piece(word, {"Added"} if i in added else decoders)
            for i, word in enumerate(words)
        ]

    def rules(self) -> str:
        """Returns the content of tokenizer.json."""
        return json.dumps(self._rules(), indent=2, ensure_ascii=False)

    def fingerprint(self) -> str:
        return self._hash

    @functools.cached_property
    def _hash(self) -> str:
        return hashlib.sha256(json.dumps(self._rules(), sort_keys=True).encode()).hexdigest()

    def _rules(self) -> dict[str, Any]:
        """Returns the whole tokenizer.json; hundreds of megabytes as objects, so it is not kept."""
        rules: dict[str, Any] = json.loads(self._as_read or self.hf.backend_tokenizer.to_str())
        return rules


def _decoder_types(decoder: Any) -> set[str]:
    """Returns the types of all decoding steps of a tokenizer.json."""
    if not isinstance(decoder, dict):
        return set()
    if decoder.get("type") == "Sequence":
        return {kind for step in decoder.get("decoders", []) for kind in _decoder_types(step)}
    return {str(decoder.get("type"))}


def _piece(word: str, decoders: set[str]) -> bytes:
    """Returns the bytes that a vocabulary entry writes in the middle of a text."""
    if "ByteLevel" in decoders:
        table = _byte_of_character()
        return bytes(table[c] for c in word) if all(c in table for c in word) else word.encode()
    if "WordPiece" in decoders:
        return word[2:].encode() if word.startswith("##") else b" " + word.encode()
    if "ByteFallback" in decoders and (match := _BYTE_TOKEN.fullmatch(word)):
        return bytes([int(match[1], 16)])
    if decoders & {"Metaspace", "Replace"}:
        return word.replace("\u2581", " ").encode()
    return word.encode()


def prefix_ids(tokenizer: TextTokenizer) -> tuple[int, ...]:
    """Returns the special tokens with which every text of this tokenizer begins (such as BOS); often none."""
    return tuple(getattr(tokenizer, "prefix_ids", ()))


def load_tokenizer(
    directory: str | Path, *, local_files_only: bool = True, trust_remote_code: bool = False
) -> TextTokenizer:
    """Returns the tokenizer of a model directory, ours or Hugging Face's."""
    path = Path(directory)
    file = path / "tokenizer.json"
    if file.is_file() and file.stat().st_size < LARGE:
        try:
            rules = read_json(file, values=LARGE)
        except DataError as error:
            said = str(error).replace(": not", ": damaged, it is not", 1)
            raise DataError(f"{said}; save the tokenizer anew") from error
        if not isinstance(rules, dict) or not {"model", "type", "tokens"} & rules.keys():
            raise DataError(
                f"{file}: damaged, it has neither the 'model' of a Hugging Face tokenizer nor the 'tokens' of a "
                "character vocabulary; save the tokenizer anew"
            )
        if "model" not in rules:  # Hugging Face's files always have a "model"
            from treegym.models.tokens.char_tokenizer import CharTokenizer

            return CharTokenizer.load(file)
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(
            str(directory), local_files_only=local_files_only, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # the Rust library raises bare exceptions; each becomes a DataError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if file.is_file() and (damage := _damage(file)):
            raise DataError(f"{file}: damaged: {damage}; save the tokenizer anew") from error
        if path.is_dir() and not file.is_file():
            raise DataError(
                f"{directory}: its tokenizer cannot be loaded, as it has no tokenizer.json; "
                "write one there with the tokenizer's save_pretrained"
            ) from error
        raise DataError(f"{directory}: its tokenizer cannot be loaded: {reason}") from error
    return HuggingFaceTokenizer(loaded)


def _damage(file: Path) -> str | None:
    """Returns what is wrong with a Hugging Face tokenizer.json; None if it is whole."""
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001 - the library knows no other
        return str(error).splitlines()[0]
    return None
