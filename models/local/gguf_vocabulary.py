"""Tokenizers in the terms of a GGUF file: tokens, their types, merges, and how a text is split before it is merged.

llama.cpp knows ways of splitting by name, not by rule, so a byte-level BPE is written only if its rule is one of those
named here; any other would be read into other tokens than the model was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from treegym.errors import ConfigError
from treegym.models.base import TextTokenizer
from treegym.models.tokens.char_tokenizer import EOS, PAD, CharTokenizer
from treegym.models.tokens.tokenizers import HuggingFaceTokenizer, byte_characters

__all__ = ["Vocabulary", "vocabulary_of"]

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # types of tokens
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITTINGS = {_WORDS % r"\p{N}{1,3}": "llama-bpe", _WORDS % r"\p{N}": "qwen2"}


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level vocabulary."""

    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    splitting: str  # llama.cpp's name for how words are found
    eos: int
    pad: int
    begin: int | None = None
    chat: str | None = None


def vocabulary_of(tokenizer: TextTokenizer, *, rows: int) -> Vocabulary:
    """Returns a tokenizer's vocabulary, filled up to the `rows` of the embedding with tokens that are never used."""
    if isinstance(tokenizer, CharTokenizer):
        found = _characters(tokenizer)
    elif isinstance(tokenizer, HuggingFaceTokenizer):
        found = _byte_pairs(tokenizer)
    else:
        raise ConfigError(f"a {type(tokenizer).__name__} cannot be written to a GGUF file; use a BPE or characters")
    more = range(len(found.tokens), rows)
    tokens = [*found.tokens, *(f"[UNUSED{number}]" for number in more)]
    types = [*found.types, *(UNUSED for _ in more)]
    return Vocabulary(
        tokens[:rows], types[:rows], found.merges, found.splitting, found.eos, found.pad, found.begin, found.chat
    )


def _characters(tokenizer: CharTokenizer) -> Vocabulary:
    """Returns characters as a BPE in which only the bytes of one character are merged."""
    written = ["".join(byte_characters()[byte] for byte in c.encode()) for c in tokenizer.characters]
    merges = [f"{word[:at]} {word[at]}" for word in written for at in range(1, len(word))]
    return Vocabulary(
        tokens=[PAD, EOS, *written],
        types=[CONTROL, CONTROL, *(NORMAL for _ in written)],
        merges=list(dict.fromkeys(merges)),
        splitting="gpt-2",
        eos=tokenizer.eos_id,
        pad=tokenizer.pad_id,
    )


def _byte_pairs(tokenizer: HuggingFaceTokenizer) -> Vocabulary:
    rules: dict[str, Any] = json.loads(tokenizer.rules())
    model = rules["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback") or model.get("continuing_subword_prefix"):
        raise ConfigError(
            f"the tokenizer is a {model.get('type')} that does not write its tokens as bytes alone; "
            "byte-level BPE and character tokenizers can be written to a GGUF file"
        )
    hf = tokenizer.hf
    special, added = tokenizer.special_ids, {int(i) for i in hf.added_tokens_decoder}
    words = hf.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
    kinds = [CONTROL if i in special else USER_DEFINED if i in added else NORMAL for i in range(len(words))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    template = getattr(hf, "chat_template", None)
    return Vocabulary(
        tokens=[f"[UNUSED{i}]" if word is None else word for i, word in enumerate(words)],
        types=[UNUSED if word is None else kind for word, kind in zip(words, kinds, strict=True)],
        merges=merges,
        splitting=_splitting(rules),
        eos=tokenizer.eos_id,
        pad=tokenizer.pad_id,
        begin=tokenizer.prefix_ids[0] if tokenizer.prefix_ids else None,
        chat=template if isinstance(template, str) else None,
    )


def _splitting(rules: dict[str, Any]) -> str:
    """Returns llama.cpp's name for how a tokenizer.json splits texts into words; ConfigError where it has none."""
    splitter = rules.get("pre_tokenizer") or {}
    steps = splitter.get("pretokenizers", []) if splitter.get("type") == "Sequence" else [splitter]
    last = steps[-1] if steps else {}
    plain = last.get("type") == "ByteLevel" and not last.get("add_prefix_space") and rules.get("normalizer") is None
    before = [_step(step) for step in steps[:-1]]
    if plain and last.get("use_regex", True):
        if not before:
            return "gpt-2"
        if before == ["digits"]:
            return "smollm"
    if last.get("type") == "ByteLevel" and not last.get("use_regex", True) and len(before) == 1:
        name = SPLITTINGS.get(before[0])
        kind = (rules.get("normalizer") or {}).get("type")
        if name is not None and kind == {"llama-bpe": None, "qwen2": "NFC"}[name]:
            return name
    raise ConfigError(
        "the tokenizer splits texts in a way that has no name in llama.cpp, which would read them into other tokens; "
        "serve this model from its directory instead (treegym serve)"
    )


def _step(step: dict[str, Any]) -> str:
    if step.get("type") == "Digits" and step.get("individual_digits"):
        return "digits"
    pattern = step.get("pattern") or {}
    return str(pattern.get("Regex", step.get("type"))) if step.get("type") == "Split" else str(step.get("type"))
