"""The primary as rounds hand it on: whole weights, and beside them adapters where only those are learned.

A round that trains adapters writes them (``adapters/``), which the next round goes on with beside the first model's
weights, and the model with them joined (``model/``), which is what is evaluated and what users load: joining rounds to
the precision of the weights, and rounding anew in every round would lose what small steps add up to.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

from treegym.agents.policies.lm_parts import load_adapters, save_adapters, with_adapters
from treegym.iterate.settings import IterateSettings

__all__ = ["Source", "keep", "learnable", "open_primary", "source_of"]

ADAPTERS, MODEL = "adapters", "model"


class Source(NamedTuple):
    """Where a primary is."""

    model: str  # a name or a directory
    adapters: str | None  # a folder of adapters beside it


def source_of(settings: IterateSettings, last: Path | None) -> Source:
    """Returns the primary that a round begins with: the last round's, or the run's first model."""
    if last is None:
        return Source(settings.model, settings.policy.get("adapters"))
    if (last / ADAPTERS).is_dir():
        return Source(settings.model, str(last / ADAPTERS))
    return Source(str(last / MODEL), None)


def open_primary(settings: IterateSettings, source: Source) -> tuple[Any, Any]:
    """Returns a primary as a `LanguageModel`, and the network in it that learns: adapted, if it has adapters."""
    from treegym.models import load_model

    model = load_model(source.model, dtype=settings.dtype)
    network = model.model if source.adapters is None else load_adapters(model.model, source.adapters)
    return model, network


def learnable(settings: IterateSettings, network: Any) -> Any:
    """Returns a network whose weights that are to be learned ask for gradients: adapters, or all."""
    rank = settings.policy.get("lora_rank")
    if hasattr(network, "merge_and_unload"):
        return network
    return network.requires_grad_(True) if rank is None else with_adapters(network, rank)


def keep(network: Any, tokenizer: Any, folder: Path) -> Any:
    """Writes a network to a round's folder; returns it as what was written: with its adapters joined."""
    from treegym.models.local.saving import save_model

    if hasattr(network, "merge_and_unload"):
        save_adapters(network, folder / ADAPTERS)
        network = copy.deepcopy(network).merge_and_unload()
    save_model(network, tokenizer, folder / MODEL)
    return network
