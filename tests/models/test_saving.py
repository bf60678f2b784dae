"""A model of one's own is saved so that the library and plain transformers read the same model and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.models.loading import load_model
from treegym.models.local.fake import FakeTokenizer
from treegym.models.local.saving import save_model

from .conftest import tiny_network

TEXT = "the first answer is 12 – größer als drei 🙂"


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(directory.iterdir())}


@pytest.fixture(params=["gpt2", "llama"])
def own(request, byte_bpe, tmp_path) -> Path:
    """A model directory as transformers itself writes it."""
    network = tiny_network(request.param, seed=3, vocab=byte_bpe.vocab_size, width=32, window=None)
    network.save_pretrained(tmp_path / "own")
    byte_bpe.hf.save_pretrained(tmp_path / "own")
    return tmp_path / "own"


def test_a_model_of_ones_own_is_saved_and_read_again(own, tmp_path) -> None:
    first = load_model(str(own), device="cpu")
    save_model(first.model, first.tokenizer, tmp_path / "saved")
    second = load_model(str(tmp_path / "saved"), device="cpu")
    assert second.tokenizer.fingerprint() == first.tokenizer.fingerprint()
    assert second.fingerprint() == first.fingerprint()
    assert second.tokenizer.encode(TEXT) == first.tokenizer.encode(TEXT)
    assert (second.tokenizer.eos_id, second.tokenizer.pad_id) == (first.tokenizer.eos_id, first.tokenizer.pad_id)
    ids = first.tokenizer.encode(TEXT)
    np.testing.assert_array_equal(second.next_logprobs([ids]), first.next_logprobs([ids]))
    save_model(second.model, second.tokenizer, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "saved")


def test_plain_transformers_reads_what_was_saved(own, tmp_path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = load_model(str(own), device="cpu")
    save_model(ours.model, ours.tokenizer, tmp_path / "saved")
    before, after = AutoTokenizer.from_pretrained(own), AutoTokenizer.from_pretrained(tmp_path / "saved")
    ids = ours.tokenizer.encode(TEXT)
    assert after(TEXT)["input_ids"] == before(TEXT)["input_ids"] == ids
    assert (after.eos_token_id, after.pad_token_id) == (before.eos_token_id, before.pad_token_id) == (1, 0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    with torch.inference_mode():
        theirs = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], -1).numpy()
    np.testing.assert_allclose(ours.next_logprobs([ids])[0], theirs, atol=1e-4)


def test_padding_truncation_and_chat_template_are_kept(own, tmp_path) -> None:
    file = own / "tokenizer.json"
    rules: dict[str, Any] = json.loads(file.read_text("utf-8"))
    rules["truncation"] = {"direction": "Right", "max_length": 100, "strategy": "LongestFirst", "stride": 0}
    rules["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    file.write_text(json.dumps(rules), "utf-8")
    (own / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    first = load_model(str(own), device="cpu")
    save_model(first.model, first.tokenizer, tmp_path / "saved")
    second = load_model(str(tmp_path / "saved"), device="cpu")
    assert second.tokenizer.fingerprint() == first.tokenizer.fingerprint()
    assert (tmp_path / "saved" / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"


def test_a_tokenizer_that_cannot_be_saved_is_a_sentence_and_writes_nothing(make_model, tmp_path) -> None:
    with pytest.raises(ConfigError, match="a FakeTokenizer cannot be saved"):
        save_model(make_model("llama").model, FakeTokenizer("abc"), tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
