"""Speaking: language-model back ends, embeddings, the bundled tiny family.

Nothing heavy is loaded before it is used: the names below come from their modules at first touch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegym.registry import lazy_face

if TYPE_CHECKING:
    from treegym.models.base import Embeds, Generates, LanguageModel, Scores, TextTokenizer
    from treegym.models.embeddings import load_embedder
    from treegym.models.loading import bundled_names, load_model
    from treegym.models.local.kv_cache import TreeCache
    from treegym.models.local.speculative import SpeculativeModel
    from treegym.models.tree_scores import Branches, score_trees

__all__ = [
    "Branches",
    "Embeds",
    "Generates",
    "LanguageModel",
    "Scores",
    "SpeculativeModel",
    "TextTokenizer",
    "TreeCache",
    "bundled_names",
    "load_embedder",
    "load_model",
    "score_trees",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Branches": "tree_scores",
        "Embeds": "base",
        "Generates": "base",
        "LanguageModel": "base",
        "Scores": "base",
        "SpeculativeModel": "local.speculative",
        "TextTokenizer": "base",
        "TreeCache": "local.kv_cache",
        "bundled_names": "loading",
        "load_embedder": "embeddings",
        "load_model": "loading",
        "score_trees": "tree_scores",
    },
)
