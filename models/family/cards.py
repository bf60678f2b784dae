"""The card of a forged model: its recipe and what it reached. A directory with a card holds a finished model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from treegym.errors import ConfigError, DataError
from treegym.models.family.specs import ModelSpec
from treegym.untrusted import read_json

__all__ = ["CARD", "WORK", "is_finished", "read_card", "recipe"]

CARD = "forge.json"
WORK = ".forge"  # where unfinished models are, inside the output directory


def recipe(spec: ModelSpec, *, seed: int) -> str:
    """Returns a hash of everything that decides what is learned."""
    text = json.dumps([asdict(spec), seed], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_card(directory: Path) -> dict[str, Any]:
    """Returns the card of a model directory."""
    file = directory / CARD
    try:
        card = read_json(file)
        if not isinstance(card, dict) or not isinstance(card.get("recipe"), str):
            raise ValueError("no recipe in it")
    except ValueError as error:
        raise DataError(f"{file}: not a model card ({error}); remove {directory} to train the model again") from error
    return card


def is_finished(out: Path, spec: ModelSpec, *, seed: int) -> bool:
    """Returns whether a directory holds this model; a model of another recipe under the same name is an error."""
    directory = out / spec.name
    if not (directory / CARD).exists():
        return False
    if read_card(directory)["recipe"] != recipe(spec, seed=seed):
        raise ConfigError(
            f"{directory} holds a model trained from another seed or recipe; choose another --out, or remove it"
        )
    return True
