"""The bundled tiny language models, with their attention as plain products and softmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treegym.errors import require
from treegym.optimize.zoo.layers import generator

__all__ = ["build", "inputs"]

MODELS = ("tiny-primary", "tiny-gpt2", "tiny-qwen3")  # one for each size
LENGTH = 24


def build(size: int, seed: int) -> nn.Module:
    """Loads a bundled model in float32; `seed` changes nothing, its weights are learned."""
    from treegym.models.loading import resolve

    transformers = require("transformers", extra="models", purpose="the zoo's language models")
    path, _ = resolve(MODELS[size])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, local_files_only=True, attn_implementation="eager", dtype=torch.float32, use_safetensors=True
    )
    model.config.use_cache = False
    model.trained = True
    return model


def inputs(size: int, seed: int) -> tuple[Tensor, ...]:
    return (torch.randint(2, 22, (8, LENGTH), generator=generator(seed)),)
