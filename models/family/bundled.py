"""Where the bundled models are, and how to load them by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treegym.errors import ConfigError, DataError, suggest
from treegym.models.family.cards import read_card

if TYPE_CHECKING:
    from treegym.models.base import LanguageModel

__all__ = ["BUNDLED", "BUNDLED_TEACHERS", "bundled_card", "bundled_path", "load_bundled"]

BUNDLED_TEACHERS = ("tiny-llama", "tiny-gpt2", "tiny-qwen3", "tiny-gemma")
BUNDLED = ("tiny-primary", *BUNDLED_TEACHERS, "tiny-complete", "tiny-judge")
_DATA = Path(__file__).resolve().parent.parent / "data"


def bundled_path(name: str) -> Path:
    """Returns the directory of a bundled model: config.json, model.safetensors, tokenizer.json, forge.json."""
    if name not in BUNDLED:
        raise ConfigError(f"there is no bundled model {name!r}.{suggest(name, BUNDLED)}")
    path = _DATA / name
    if not (path / "model.safetensors").is_file():
        raise DataError(
            f"{path} does not hold the bundled model {name!r}; `treegym forge --out {_DATA}` makes it again"
        )
    return path


def bundled_card(name: str) -> dict[str, Any]:
    """Returns what the forge wrote down about a bundled model: role, steps, seed, validation accuracy."""
    return read_card(bundled_path(name))


def load_bundled(name: str) -> LanguageModel:
    """Returns a bundled model behind the language-model protocol."""
    backend = importlib.import_module("treegym.models.loading")  # heavy: only when a model is wanted
    model: LanguageModel = backend.load_model(str(bundled_path(name)))
    return model
