"""After the primary changed: its columns of a tree, computed anew in one pass; the structure stays as it is."""

from __future__ import annotations

from treegym.envs.token_tree.grow_basis import ContextBasis
from treegym.envs.token_tree.grow_columns import fill_primary, vocabulary
from treegym.envs.token_tree.grow_settings import Voice
from treegym.envs.token_tree.grow_voices import make_voices
from treegym.envs.token_tree.tree import TokenTree
from treegym.errors import ConfigError
from treegym.models.base import LanguageModel

__all__ = ["refresh"]


def refresh(tree: TokenTree, model: LanguageModel, *, roots_at_once: int = 32) -> TokenTree:
    """Recomputes prior, similarity and context of every node from `model`, in place, and returns the tree.

    Contexts are described by the components that were fitted when the tree was grown, so that features stay comparable.

    Args:
        tree: a tree in the model's vocabulary; one opened from a file is copied into memory.
        model: the primary as it is now.
        roots_at_once: prompts a batch; bounds the memory.
    """
    if vocabulary(model) != tree.tokens:
        raise ConfigError(
            f"{model.name!r} has another vocabulary ({model.tokenizer.vocab_size} tokens) than the tree "
            f"({tree.vocab_size}); refresh a tree with the model it was grown for"
        )
    tree.make_writable()
    [voice] = make_voices(model, [])
    basis = _basis(tree, voice)
    for start in range(0, tree.num_roots, roots_at_once):
        fill_primary(tree, voice, basis, range(start, min(start + roots_at_once, tree.num_roots)))
    tree.header["primary"] = {"name": model.name, "fingerprint": model.fingerprint()}
    return tree


def _basis(tree: TokenTree, voice: Voice) -> ContextBasis | None:
    """Returns the tree's own components, if it carries contexts and they fit the model's hidden size."""
    if not tree.has("context") or "context_basis" not in tree.header:
        return None
    basis = ContextBasis.from_header(tree.header["context_basis"])
    width = voice.model.embed([voice.begin(tree.roots[0].prompt)]).shape[1] if tree.num_roots else len(basis.mean)
    if width != len(basis.mean):
        raise ConfigError(
            f"{voice.name!r} has hidden size {width}, but the tree's contexts were fitted on {len(basis.mean)}; "
            "grow the tree anew for a primary of another size"
        )
    return basis
