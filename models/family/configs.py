"""Tiny transformers models of different families over the character vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from treegym.models.family.specs import ModelSpec
from treegym.models.tokens.char_tokenizer import CharTokenizer

__all__ = ["build"]

MAX_POSITIONS = 64
HEADS = 4


def build(spec: ModelSpec, tokenizer: CharTokenizer, *, seed: int) -> PreTrainedModel:
    """Returns a freshly initialised float32 model; equal seeds give equal weights."""
    ends: dict[str, Any] = {"bos_token_id": None, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    rotary: dict[str, Any] = {
        **ends,
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": spec.width,
        "intermediate_size": spec.width * 5 // 2,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": HEADS,
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": True,
        "initializer_range": 0.04,  # narrow layers want more than the 0.02 of wide ones
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.architecture == "llama":
            return LlamaForCausalLM(LlamaConfig(**rotary, num_key_value_heads=HEADS))
        if spec.architecture == "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(**rotary, num_key_value_heads=2, head_dim=spec.width // HEADS))
        if spec.architecture == "gemma":
            return GemmaForCausalLM(GemmaConfig(**rotary, num_key_value_heads=1, head_dim=spec.width // HEADS))
        return GPT2LMHeadModel(
            GPT2Config(
                **ends,
                vocab_size=tokenizer.vocab_size,
                n_positions=MAX_POSITIONS,
                n_embd=spec.width,
                n_layer=spec.layers,
                n_head=HEADS,
                activation_function="gelu_pytorch_tanh",
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                initializer_range=0.04,
            )
        )
