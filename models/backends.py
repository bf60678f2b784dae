"""Any model by its name: the table of back ends, by how a name begins; all other names are models on this machine.

A new back end is one module with a function ``connect(address, **hints)`` and one line in `BACK_ENDS`.
"""

from __future__ import annotations

import importlib
from typing import Any

from treegym.models.base import LanguageModel

__all__ = ["BACK_ENDS", "back_end_of", "open_model"]

BACK_ENDS: dict[str, str] = {  # beginning of a name -> module that connects
    "http://": "treegym.models.connect",
    "https://": "treegym.models.connect",
    "litellm:": "treegym.models.connect",
    "vllm:": "treegym.models.connect",
}


def back_end_of(name: str) -> str | None:
    """Returns the module of the back end that a name belongs to, None for models on this machine."""
    return next((module for beginning, module in BACK_ENDS.items() if name.startswith(beginning)), None)


def open_model(name: str, *, primary: LanguageModel | None = None, **loading: Any) -> LanguageModel:
    """Returns the model of a name: an address of a back end, or whatever `load_model` takes.

    Args:
        name: such as ``tiny-primary``, ``smollm2``, ``model.gguf``, ``owner/model`` or ``http://host/v1#tokenizer=...``.
        primary: the model in whose tokens a chat model's answers are written, where its address names no tokenizer.
        loading: arguments of `load_model`, such as device and dtype.
    """
    module = back_end_of(name)
    if module is not None:
        found: LanguageModel = importlib.import_module(module).connect(name, primary=primary)
        return found
    from treegym.models.loading import load_model

    return load_model(name, **loading)
