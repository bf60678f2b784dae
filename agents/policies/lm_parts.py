"""What a language model is made of to a policy: layers, head, adapters, and which tokens its texts are made of."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from treegym.agents.fast.vocabulary import Head
from treegym.errors import ConfigError, DataError, require
from treegym.files import atomic_write
from treegym.shape import misfit
from treegym.untrusted import read_json

__all__ = ["Free", "head_of", "layers_below", "load_adapters", "save_adapters", "with_adapters"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class Free(NamedTuple):
    """Free text: any token may follow, but for some that are barred; several may be its end."""

    ends: tuple[int, ...]  # EOS first
    barred: tuple[int, ...]


def layers_below(model: nn.Module) -> nn.Module:
    """Returns the layers below the output embeddings, adapters included."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model  # type: ignore[return-value]


def head_of(model: Any, size: int, free: Free | None = None) -> Head:
    """Returns what turns a model's states into logits of the first `size` tokens; on free text, with its ends."""
    output = model.get_output_embeddings()
    bias = getattr(output, "bias", None)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def on(ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor(ids, dtype=torch.long, device=output.weight.device)

    ends = None if free is None or len(free.ends) < 2 else on(free.ends)
    barred = None if free is None or not free.barred else on(free.barred)
    return Head(output.weight[:size], None if bias is None else bias[:size], cap, ends, barred)


def with_adapters(model: Any, rank: int) -> Any:
    """Returns a model with low-rank adapters, in float32, at all of its linear layers; only they are learned."""
    peft = require("peft", extra="lora", purpose="low-rank adapters")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ConfigError(f"lora_rank is {rank!r}; it must be a whole number from 1")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return _adapted(peft, model, config)


def _adapted(peft: Any, model: Any, config: Any) -> Any:
    with warnings.catch_warnings():  # it asks `transformers` for activation checkpointing by a name that goes
        warnings.simplefilter("ignore", FutureWarning)
        return peft.get_peft_model(model, config)


def save_adapters(model: Any, folder: str | Path) -> None:
    """Writes the adapters of a model, without the weights that they adapt."""
    import peft
    from safetensors.torch import save_file

    Path(folder).mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"]
    told = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": sorted(config.target_modules)}
    weights = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, str(Path(folder) / WEIGHTS))
    atomic_write(Path(folder) / CONFIG, json.dumps({"peft_type": "LORA", **told}, indent=1))


def load_adapters(model: Any, folder: str | Path) -> Any:
    """Returns a model with the adapters that `save_adapters` wrote, to go on learning them."""
    peft = require("peft", extra="lora", purpose="low-rank adapters")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    told = read_json(Path(folder) / CONFIG)
    if misfit(told, {"r": int, "lora_alpha": (int, float), "target_modules": list}) is not None:
        raise DataError(f"{Path(folder) / CONFIG}: no settings of adapters; name a folder that a round wrote")
    try:
        weights = load_file(str(Path(folder) / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{Path(folder) / WEIGHTS}: the adapters cannot be read: {error}") from error
    config = peft.LoraConfig(
        r=told["r"], lora_alpha=told["lora_alpha"], target_modules=told["target_modules"], task_type="CAUSAL_LM"
    )
    adapted = _adapted(peft, model, config)
    result = peft.set_peft_model_state_dict(adapted, weights)
    if result.unexpected_keys or any("lora_" in key for key in result.missing_keys):
        raise DataError(f"{folder}: the adapters are those of another model than the one they are to adapt")
    return adapted
