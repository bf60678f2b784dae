"""Speaking: language-model back ends, embeddings, the bundled tiny family.

Nothing heavy is loaded before it is used: the names below come from their modules at first touch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treegym.models.base import LanguageModel, TextTokenizer
    from treegym.models.embeddings import load_embedder
    from treegym.models.loading import bundled_names, load_model
    from treegym.models.local.kv_cache import TreeCache
    from treegym.models.local.speculative import SpeculativeModel
    from treegym.models.tree_scores import Branches, score_trees

__all__ = [
    "Branches",
    "LanguageModel",
    "SpeculativeModel",
    "TextTokenizer",
    "TreeCache",
    "bundled_names",
    "load_embedder",
    "load_model",
    "score_trees",
]

_HOME = {
    "Branches": "tree_scores",
    "LanguageModel": "base",
    "SpeculativeModel": "local.speculative",
    "TextTokenizer": "base",
    "TreeCache": "local.kv_cache",
    "bundled_names": "loading",
    "load_embedder": "embeddings",
    "load_model": "loading",
    "score_trees": "tree_scores",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"treegym.models.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
