"""Tests of the character tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treegym.errors import DataError
from treegym.models.tokens.char_tokenizer import CHARACTERS, CharTokenizer


def test_round_trip_and_pieces() -> None:
    tokenizer = CharTokenizer()
    ids = tokenizer.encode(CHARACTERS)
    assert sorted(ids) == list(range(2, tokenizer.vocab_size))
    assert tokenizer.decode(ids) == CHARACTERS
    assert tokenizer.decode([*ids, tokenizer.eos_id, tokenizer.pad_id]) == CHARACTERS
    pieces = tokenizer.pieces()
    assert pieces[tokenizer.eos_id] == pieces[tokenizer.pad_id] == b""
    assert b"".join(pieces[i] for i in ids).decode() == CHARACTERS


def test_saved_and_loaded_is_equal(tmp_path: Path) -> None:
    tokenizer = CharTokenizer("ab.")
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = CharTokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.fingerprint() == tokenizer.fingerprint() != CharTokenizer().fingerprint()
    assert loaded.encode("ba.") == [3, 2, 4]


def test_a_character_outside_the_vocabulary_is_named() -> None:
    with pytest.raises(DataError, match="'w'"):
        CharTokenizer().encode("what is 2+2?")


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        json.dumps({"type": "bpe", "tokens": ["<pad>", "<eos>"], "pad": "<pad>", "eos": "<eos>"}),
        json.dumps({"type": "char", "tokens": ["<eos>", "<pad>", "a"], "pad": "<pad>", "eos": "<eos>"}),
        json.dumps({"type": "char", "tokens": ["<pad>", "<eos>", "ab"], "pad": "<pad>", "eos": "<eos>"}),
        json.dumps({"type": "char", "tokens": ["<pad>", "<eos>", "a", "a"], "pad": "<pad>", "eos": "<eos>"}),
    ],
)
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(DataError):
        CharTokenizer.load(path)
