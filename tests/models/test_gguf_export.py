"""A Llama as a GGUF file: what stands in it, what is refused, and on a real llama.cpp what it says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from treegym.__main__ import main
from treegym.errors import ConfigError
from treegym.models import load_model
from treegym.models.backends import open_model
from treegym.models.local.gguf_export import export_gguf, neighbours, stretched_by
from treegym.models.local.gguf_header import read_gguf_header
from treegym.models.local.gguf_vocabulary import vocabulary_of
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tokens.char_tokenizer import CharTokenizer

from .conftest import tiny_network

gguf = pytest.importorskip("gguf", reason="gguf is not installed: make real")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREEGYM_CACHE", str(tmp_path / "cache"))


def fields(file: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(str(file))
    return {name: field.contents() for name, field in reader.fields.items()}


def test_rows_that_are_turned_together_become_neighbours() -> None:
    # two heads of four rows: halves (0, 1 | 2, 3) become pairs 0, 2, 1, 3; the second head's rows likewise
    rows = np.arange(8.0)[:, None]
    assert neighbours(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_stretched_context_divides_long_waves_only() -> None:
    """Two frequencies, 1 and 1 / 100: waves of 2 pi and of 200 pi, in an old context of 100 pi.

    The old context holds 50 of the short waves, above the high factor of 4, so it stays: 1. It holds half a long one,
    below the low factor of 1, so it is divided by 8.
    """
    rope = {"rope_theta": 10_000.0, "original_max_position_embeddings": 100 * math.pi}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "factor": 8.0}
    assert stretched_by(SimpleNamespace(rope_parameters=rope, head_dim=4)).tolist() == [1.0, 8.0]


def test_a_file_holds_the_weights_and_the_characters(tmp_path: Path) -> None:
    model = load_model("tiny-primary")
    file = tmp_path / "primary.gguf"
    assert main(["export", "gguf", "tiny-primary", "--out", str(file), "--json"]) == 0
    told = fields(file)
    assert told["tokenizer.ggml.tokens"][:5] == ["<pad>", "<eos>", "0", "1", "2"]
    assert told["tokenizer.ggml.tokens"][-1] == "Ġ"  # byte-level BPE writes a space so
    assert told["tokenizer.ggml.merges"] == []
    assert told["tokenizer.ggml.eos_token_id"] == 1
    assert not told["tokenizer.ggml.add_bos_token"]
    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(str(file)).tensors}
    state = {name: tensor.float().numpy() for name, tensor in model.model.state_dict().items()}
    np.testing.assert_array_equal(stored["token_embd.weight"], state["model.embed_tokens.weight"].astype(np.float16))
    np.testing.assert_array_equal(stored["output_norm.weight"], state["model.norm.weight"])
    query = state["model.layers.1.self_attn.q_proj.weight"].astype(np.float16)
    # heads of 16 rows: row 1 of the file is row 8 of transformers, where the second half of the first head begins
    np.testing.assert_array_equal(stored["blk.1.attn_q.weight"][1], query[8])
    np.testing.assert_array_equal(stored["blk.1.attn_q.weight"][18], query[17])
    assert "output.weight" not in stored  # the embedding is read in its place
    assert read_gguf_header(file).parameters == sum(values.size for values in stored.values())


def test_the_file_is_read_back_as_the_same_model(tmp_path: Path, own_cache: None) -> None:
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    ours = load_model("tiny-primary")
    export_gguf(ours, tmp_path / "primary.gguf", kind="f32")
    again = load_model(str(tmp_path / "primary.gguf"))
    texts = ["12+30-5=", "3*4=12.", "9 1,y"]
    contexts = [ours.tokenizer.encode(text) for text in texts]
    assert [again.tokenizer.encode(text) for text in texts] == contexts
    # the cache keeps bfloat16, eight bits of a number
    assert np.abs(np.exp(again.next_logprobs(contexts)) - np.exp(ours.next_logprobs(contexts))).max() < 0.05


def test_characters_of_several_bytes_are_merged_from_them() -> None:
    # "é" is the bytes c3 a9, written Ã and ©
    found = vocabulary_of(CharTokenizer("aé"), rows=6)
    assert list(found.tokens) == ["<pad>", "<eos>", "a", "Ã©", "[UNUSED4]", "[UNUSED5]"]
    assert list(found.types) == [3, 3, 1, 1, 5, 5]
    assert list(found.merges) == ["Ã ©"]


def test_a_byte_level_bpe_is_written_by_name(byte_bpe: Any) -> None:
    rules = json.loads(byte_bpe.rules())
    found = vocabulary_of(byte_bpe, rows=byte_bpe.vocab_size)
    assert found.splitting == "gpt-2"
    assert len(found.tokens) == byte_bpe.vocab_size
    assert len(found.merges) == len(rules["model"]["merges"])
    assert found.types[byte_bpe.eos_id] == 3


def test_what_cannot_be_written_exactly_is_refused(tmp_path: Path, byte_bpe: Any) -> None:
    file = tmp_path / "a.gguf"
    with pytest.raises(ConfigError, match="GPT2LMHeadModel; Llamas are written"):
        export_gguf(load_model("tiny-gpt2"), file)
    with pytest.raises(ConfigError, match=r"ends in \.gguf"):
        export_gguf(load_model("tiny-primary"), tmp_path / "a.bin")
    with pytest.raises(ConfigError, match="f32, f16, bf16"):
        export_gguf(load_model("tiny-primary"), file, kind="q2")
    model = load_model("tiny-primary")
    with torch.no_grad():
        model.model.get_input_embeddings().weight[0, 0] = 1e5
    with pytest.raises(ConfigError, match="beyond half precision"):
        export_gguf(model, file)
    assert list(tmp_path.iterdir()) == []  # nothing is left of what was begun


def _spread(left: np.ndarray, right: np.ndarray) -> float:
    """Returns the largest difference among tokens that are likelier than one in a thousand."""
    return float(np.abs(left - right)[right > math.log(1e-3)].max())


@pytest.mark.real
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_llama_cpp_says_the_same(tmp_path: Path, own_cache: None, kind: str) -> None:
    ours = load_model("tiny-primary")
    export_gguf(ours, tmp_path / "primary.gguf", kind=kind)
    theirs = open_model(f"llama:{tmp_path / 'primary.gguf'}")
    contexts = [ours.tokenizer.encode(text) for text in ("12+30-5=", "3*4%5=", "17-8=9", "3,1,2=")]
    assert [theirs.tokenizer.encode(ours.tokenizer.decode(context)) for context in contexts] == contexts
    assert _spread(theirs.next_logprobs(contexts), ours.next_logprobs(contexts)) < 0.02  # keys and values are halves
    assert theirs.generate(contexts, max_new_tokens=8) == ours.generate(contexts, max_new_tokens=8)


@pytest.mark.real
@pytest.mark.parametrize("rope", ["default", "linear", "llama3"])
def test_llama_cpp_reads_a_byte_level_bpe_and_a_stretched_context(
    tmp_path: Path, own_cache: None, byte_bpe: Any, rope: str
) -> None:
    network = tiny_network("llama", seed=1, vocab=byte_bpe.vocab_size, width=32, window=None)
    stretched = {"linear": {"factor": 2.0}, "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}}
    parameters = {"rope_theta": 10_000.0, "rope_type": rope, **stretched.get(rope, {})}
    if rope == "llama3":
        parameters["original_max_position_embeddings"] = 16
    config = type(network.config)(**{**network.config.to_dict(), "rope_parameters": parameters})
    network = type(network)(config).eval()
    ours = TransformersModel(network, byte_bpe, name="tiny")
    export_gguf(ours, tmp_path / "tiny.gguf", kind="f32")
    theirs = open_model(f"llama:{tmp_path / 'tiny.gguf'}#logprobs=1000")
    texts = ["Two and two make", "the  cat, sat 12 times\non it", "naïve – ünïcode"]
    contexts = [byte_bpe.encode(text) for text in texts]
    assert [theirs.tokenizer.encode(text) for text in texts] == contexts
    assert _spread(theirs.next_logprobs(contexts), ours.next_logprobs(contexts)) < 0.02
