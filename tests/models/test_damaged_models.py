"""Damaged model directories are refused with one sentence that names the file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from treegym.errors import DataError
from treegym.models.loading import load_model

from .conftest import tiny_network


@pytest.fixture
def own(byte_bpe, tmp_path) -> Callable[[int], Path]:
    def make(vocab: int = byte_bpe.vocab_size) -> Path:
        tiny_network("llama", seed=3, vocab=vocab, width=32, window=None).save_pretrained(tmp_path / "own")
        byte_bpe.hf.save_pretrained(tmp_path / "own")
        return tmp_path / "own"

    return make


def refusal(directory: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_model(str(directory), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("damage", ["half", "garbage", "empty"])
def test_damaged_weights(own, damage) -> None:
    file = own() / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes({"half": whole[: len(whole) // 2], "garbage": b"hello" * 100, "empty": b""}[damage])
    assert refusal(file.parent).startswith(f"{file}: damaged weights")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "no JSON object but a list"),
        ("{}", "Unrecognized model"),
        ('{"model_type": "llama", "hidden_size": "abc"}', "hidden_size"),
    ],
)
def test_a_broken_configuration(own, content, words) -> None:
    file = own() / "config.json"
    file.write_text(content)
    message = refusal(file.parent)
    assert message.startswith(f"{file}: ")
    assert words in message


def test_weights_of_other_shapes_than_the_configuration_says(own) -> None:
    file = own() / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"intermediate_size": 48}))
    assert "of shape (32, 64), but by config.json it is (32, 48)" in refusal(file.parent)


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"model": 3}', '{"model": {"type": "BPE"'])
def test_a_damaged_tokenizer(own, content) -> None:
    file = own() / "tokenizer.json"
    file.write_text(content)
    message = refusal(file.parent)
    assert message.startswith(f"{file}: damaged")
    assert message.endswith("save the tokenizer anew")


def test_no_tokenizer_at_all(own) -> None:
    directory = own()
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").unlink()
    assert "no tokenizer.json" in refusal(directory)


def test_a_tokenizer_larger_than_the_embedding_is_refused_and_a_smaller_one_is_not(own, byte_bpe) -> None:
    message = refusal(own(20))
    assert f"its tokenizer has {byte_bpe.vocab_size} tokens but its embedding only 20" in message
    padded = load_model(str(own(byte_bpe.vocab_size + 30)), device="cpu")
    assert padded.next_logprobs([[5, 6]]).shape == (1, byte_bpe.vocab_size)


def test_added_tokens_without_an_embedding_are_left_out(own, byte_bpe) -> None:
    directory = own()
    tokenizer = copy.deepcopy(byte_bpe.hf)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<picture>"]})
    tokenizer.save_pretrained(directory)
    loaded = load_model(str(directory), device="cpu")
    assert loaded.tokenizer.vocab_size == byte_bpe.vocab_size
    assert len(loaded.tokenizer.pieces()) == byte_bpe.vocab_size
    assert loaded.next_logprobs([[5, 6]]).shape == (1, byte_bpe.vocab_size)
