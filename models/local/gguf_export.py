"""A Llama as a GGUF file, with its tokenizer: what llama.cpp and everything built on it serves.

llama.cpp turns neighbouring numbers of a head by the rotary embedding where `transformers` turns its two halves, so the
rows of query and key matrices change places. What this file cannot write exactly is refused by name: an approximate
copy of a model that was trained and measured would be another model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from treegym.checks import one_of
from treegym.errors import ConfigError, DataError, require
from treegym.files import atomic_path
from treegym.models.local.gguf_vocabulary import Vocabulary, vocabulary_of
from treegym.models.local.transformers_model import TransformersModel

__all__ = ["TYPES", "export_gguf"]

TYPES = ("f32", "f16", "bf16", "q8_0")
HALF_LIMIT = 65504.0  # the largest number of half precision


def export_gguf(model: TransformersModel, out: str | os.PathLike[str], *, kind: str = "f16") -> dict[str, Any]:
    """Writes a model to a GGUF file, whole or not at all, and returns its figures.

    Args:
        model: a Llama with a character tokenizer or a byte-level BPE, as `load_model` returns it.
        out: the file to write.
        kind: how matrices are stored: f32, f16, bf16, or q8_0 (blocks of 32 in 8 bits); vectors are float32 always.
    """
    one_of("the type of a GGUF file", kind, TYPES)
    file = Path(out)
    if file.suffix != ".gguf":
        raise ConfigError(f"{file}: the name of a GGUF file ends in .gguf")
    gguf = require("gguf", extra="gguf", purpose="writing a GGUF file")
    _check_architecture(model)
    words = vocabulary_of(model.tokenizer, rows=int(model.model.get_input_embeddings().weight.shape[0]))
    with atomic_path(file) as staging:
        writer = _writer(gguf, staging)
        _describe(writer, gguf, model, kind)
        _add_vocabulary(writer, words, gguf.GGUFValueType.ARRAY)
        count = 0
        for name, values in _tensors(model.model, model.config, gguf):
            count += values.size
            stored, raw_type = _stored(gguf, name, values, kind)
            writer.add_tensor(name, stored, raw_dtype=raw_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return {"out": str(file), "type": kind, "weights": count, "bytes": file.stat().st_size, "tokens": len(words.tokens)}


def _check_architecture(model: TransformersModel) -> None:
    name, config = type(model.model).__name__, model.config
    if name != "LlamaForCausalLM":
        raise ConfigError(
            f"{model.name} is a {name}; Llamas are written as GGUF files (LlamaForCausalLM), other models not"
        )
    odd = {
        "attention_bias": getattr(config, "attention_bias", False),
        "mlp_bias": getattr(config, "mlp_bias", False),
        "hidden_act": config.hidden_act not in ("silu", "swish"),
        "rope_type": _rope(config).get("rope_type", "default") not in ("default", "linear", "llama3"),
    }
    for key, differs in odd.items():
        if differs:
            told = _rope(config).get(key) if key == "rope_type" else getattr(config, key)
            raise ConfigError(f"{model.name}: its {key} is {told!r}, which is not written to GGUF files here")


def _rope(config: Any) -> Mapping[str, Any]:
    return getattr(config, "rope_parameters", None) or {}


def _writer(gguf: Any, file: Path) -> Any:
    """Returns the package's writer, which also writes lists of nothing: characters have no merges, and say so."""

    class Writer(gguf.GGUFWriter):
        def _pack_val(self, val: Any, vtype: Any, add_vtype: bool, sub_type: Any = None) -> bytes:
            if vtype == gguf.GGUFValueType.ARRAY and len(val) == 0:
                kind = self._pack("I", vtype) if add_vtype else b""
                return kind + self._pack("I", gguf.GGUFValueType.STRING) + self._pack("Q", 0)
            return super()._pack_val(val, vtype, add_vtype, sub_type)

    return Writer(str(file), "llama")


def _describe(writer: Any, gguf: Any, model: TransformersModel, kind: str) -> None:
    config, rope = model.config, _rope(model.config)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(model.name)
    writer.add_file_type(getattr(gguf.LlamaFileType, "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    writer.add_vocab_size(int(model.model.get_input_embeddings().weight.shape[0]))


def _add_vocabulary(writer: Any, words: Vocabulary, merges_type: Any) -> None:
    writer.add_tokenizer_model("gpt2")  # llama.cpp's name for byte-level BPE
    writer.add_tokenizer_pre(words.splitting)
    writer.add_token_list(list(words.tokens))
    writer.add_token_types(list(words.types))
    writer.add_key_value("tokenizer.ggml.merges", list(words.merges), merges_type)
    writer.add_eos_token_id(words.eos)
    writer.add_pad_token_id(words.pad)
    if words.begin is not None:
        writer.add_bos_token_id(words.begin)
    writer.add_add_bos_token(words.begin is not None)
    writer.add_add_eos_token(False)
    if words.chat is not None:
        writer.add_chat_template(words.chat)


def _tensors(network: Any, config: Any, gguf: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the tensors by llama.cpp's names, in float32."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tied = network.get_output_embeddings().weight is network.get_input_embeddings().weight
    for key, tensor in network.state_dict().items():
        if tied and key == "lm_head.weight":
            continue  # llama.cpp reads the embedding in its place
        values = tensor.detach().float().cpu().numpy()
        name = names.get_name(key, try_suffixes=(".weight",))
        if name is None:
            raise DataError(f"the weights hold {key}, which a Llama in a GGUF file has no place for")
        part = key.split(".")[-2]
        yield name, neighbours(values, heads[part]) if part in heads else values
    if _rope(config).get("rope_type") == "llama3":
        yield "rope_freqs.weight", stretched_by(config)


def neighbours(values: np.ndarray, heads: int) -> np.ndarray:
    """Returns rows ``[heads * d, D]`` with those that are turned together, a half apart in each head, side by side."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def stretched_by(config: Any) -> np.ndarray:
    """Returns by what each rotary frequency is divided ``[d / 2] float32`` in a Llama 3 of a stretched context.

    Waves shorter than a part of the old context stay, longer ones are divided by the factor, those between by what
    lies between (https://arxiv.org/abs/2407.21783, and `transformers`' "llama3" scaling).
    """
    rope = _rope(config)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    frequencies = 1.0 / float(rope["rope_theta"]) ** (np.arange(0, size, 2) / size)
    waves, old = 2 * math.pi / frequencies, float(rope["original_max_position_embeddings"])
    low, high, factor = (float(rope[name]) for name in ("low_freq_factor", "high_freq_factor", "factor"))
    between = np.clip((old / waves - low) / (high - low), 0.0, 1.0)  # 1 for short waves, 0 for long ones
    return (1.0 / ((1.0 - between) / factor + between)).astype(np.float32)


def _stored(gguf: Any, name: str, values: np.ndarray, kind: str) -> tuple[np.ndarray, Any]:
    """Returns a tensor as it is written, and its type where NumPy has none."""
    if values.ndim == 1 or kind == "f32":
        return np.ascontiguousarray(values, np.float32), None
    if kind == "f16":
        if np.abs(values).max(initial=0.0) > HALF_LIMIT:
            raise ConfigError(f"{name} holds numbers beyond half precision; write the file as f32 or bf16")
        return np.ascontiguousarray(values, np.float16), None
    if kind == "q8_0" and values.shape[-1] % 32:
        raise ConfigError(f"{name} has rows of {values.shape[-1]} numbers, and q8_0 packs 32 together; write it as f16")
    raw_type = getattr(gguf.GGMLQuantizationType, kind.upper())
    return gguf.quants.quantize(np.ascontiguousarray(values, np.float32), raw_type), raw_type
