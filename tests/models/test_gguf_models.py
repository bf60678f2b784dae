"""GGUF files as models: converted once, equal to the network they were written from, refused with one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treegym.errors import BackendError, DataError, MissingDependency
from treegym.models.loading import load_model, resolve
from treegym.models.local import gguf_conversion
from treegym.models.provided import PROVIDED

from .conftest import tiny_network


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of converted models that ends with the test."""
    monkeypatch.setenv("TREEGYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _halves_side_by_side(weight: Any, heads: int) -> Any:
    """Returns rows as llama.cpp has them: its rotary embedding turns neighbours, transformers' turns halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


@pytest.fixture
def write_gguf(byte_bpe) -> Callable[..., Path]:
    """Writes a Llama of transformers, with the byte-level tokenizer, as a GGUF file."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed: make real")

    def write(
        network: Any, path: Path, *, architecture: str = "llama", more: Callable[[Any], None] | None = None
    ) -> Path:
        config = network.config
        writer = gguf.GGUFWriter(str(path), architecture)
        writer.add_name("Tiny")
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_vocab_size(config.vocab_size)
        rules = json.loads(byte_bpe.hf.backend_tokenizer.to_str())["model"]
        words = sorted(rules["vocab"], key=rules["vocab"].__getitem__)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(words)
        writer.add_token_types([3 if word in ("<pad>", "<eos>") else 1 for word in words])
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in rules["merges"]])
        writer.add_eos_token_id(byte_bpe.eos_id)
        writer.add_pad_token_id(byte_bpe.pad_id)
        writer.add_bos_token_id(byte_bpe.eos_id)
        writer.add_add_bos_token(False)
        if more is not None:
            more(writer)
        names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
        names |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
        names |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
        for name, tensor in network.state_dict().items():
            array = tensor.float().numpy()
            if name.startswith("model.layers."):
                _, _, layer, rest = name.split(".", 3)
                part = rest.removesuffix(".weight")
                if part == "self_attn.q_proj":
                    array = _halves_side_by_side(array, config.num_attention_heads)
                if part == "self_attn.k_proj":
                    array = _halves_side_by_side(array, config.num_key_value_heads)
                writer.add_tensor(f"blk.{layer}.{names[part]}.weight", array)
            else:
                outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
                writer.add_tensor(f"{outer[name.removesuffix('.weight')]}.weight", array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture
def network(byte_bpe):
    return tiny_network("llama", seed=7, vocab=byte_bpe.vocab_size, width=32, window=None)


def test_a_file_is_the_network_it_was_written_from(write_gguf, network, byte_bpe, cache, tmp_path) -> None:
    file = write_gguf(network, tmp_path / "tiny.gguf")
    model = load_model(str(file), device="cpu", dtype="float32")
    assert model.name == "tiny"
    assert model.tokenizer.eos_id == byte_bpe.eos_id
    ids = byte_bpe.encode("the first answer is 12")
    assert model.tokenizer.encode("the first answer is 12") == ids
    with torch.inference_mode():
        logits = network.to(torch.bfloat16).float()(input_ids=torch.tensor([ids])).logits[0, -1]
    expected = torch.log_softmax(logits, -1).numpy()
    np.testing.assert_allclose(model.next_logprobs([ids])[0], expected, atol=1e-3)


def test_it_is_converted_once_and_found_in_a_directory(write_gguf, network, cache, tmp_path, monkeypatch) -> None:
    (tmp_path / "folder").mkdir()
    file = write_gguf(network, tmp_path / "folder" / "tiny.gguf")
    where, local = resolve(str(file.parent))
    assert local
    assert Path(where).parent == cache / "gguf"
    assert (Path(where) / "gguf.json").is_file()

    def never(*_: object) -> None:
        raise AssertionError("converted a second time")

    monkeypatch.setattr(gguf_conversion, "_convert_elsewhere", never)
    assert resolve(str(file)) == (where, True)
    assert not [entry for entry in (cache / "gguf").iterdir() if entry.name.startswith(".")]
    write_gguf(network, file.with_name("second.gguf"))
    with pytest.raises(DataError, match="holds 2 GGUF files"):
        resolve(str(file.parent))


def test_further_ends_and_the_chat_template_come_along(write_gguf, network, cache, tmp_path) -> None:
    def more(writer) -> None:
        writer.add_eot_token_id(5)
        writer.add_chat_template("{% for m in messages %}<{{ m['content'] }}>{% endfor %}")

    model = load_model(str(write_gguf(network, tmp_path / "tiny.gguf", more=more)), device="cpu")
    assert list(model.model.generation_config.eos_token_id) == [model.tokenizer.eos_id, 5]
    said = model.tokenizer.hf.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert said == "<hi>"


def test_an_unknown_architecture_is_named(write_gguf, network, cache, tmp_path) -> None:
    file = write_gguf(network, tmp_path / "odd.gguf", architecture="martian")
    with pytest.raises(DataError, match="'martian'") as caught:
        resolve(str(file))
    assert "\n" not in str(caught.value)
    assert not list((cache / "gguf").iterdir())


def test_too_little_memory_is_said_before_anything_is_read(write_gguf, network, cache, tmp_path, monkeypatch) -> None:
    file = write_gguf(network, tmp_path / "tiny.gguf")
    monkeypatch.setattr("treegym.models.local.memory.available_memory", lambda: 1000)
    with pytest.raises(BackendError, match=r"converting tiny\.gguf takes about 0\.0 GB of memory and 0\.0 GB are free"):
        resolve(str(file))


def test_other_files_are_refused(cache, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="this is a file of another kind"):
        resolve(str(tmp_path / "notes.txt"))
    (tmp_path / "broken.gguf").write_bytes(b"hello there")
    with pytest.raises(DataError, match="not a GGUF model"):
        resolve(str(tmp_path / "broken.gguf"))


@pytest.mark.parametrize("name", sorted(PROVIDED))
def test_provided_models_say_how_to_get_them(name, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(MissingDependency, match="make real"):
        resolve(name)
