"""After the primary changed: its columns of a tree, computed anew in one pass; the structure stays as it is."""

from __future__ import annotations

from treegym.envs.token_tree.grow.basis import ContextBasis
from treegym.envs.token_tree.grow.columns import fill_primary, vocabulary
from treegym.envs.token_tree.grow.states import ContextStates
from treegym.envs.token_tree.grow.voices import make_voices
from treegym.errors import ConfigError
from treegym.models.base import LanguageModel
from treegym.models.embeddings import Embedder
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.tree.token_tree import TokenTree

__all__ = ["refresh"]


def refresh(
    tree: TokenTree, model: LanguageModel, *, embedder: Embedder | None = None, roots_at_once: int = 32
) -> TokenTree:
    """Recomputes prior, similarity and context of every node from `model`, in place, and returns the tree.

    Contexts are described by the components that were fitted when the tree was grown, so that features stay comparable.

    Args:
        tree: a tree in the model's vocabulary; one opened from a file is copied into memory.
        model: the primary as it is now.
        embedder: what described the contexts when the tree was grown, if that was an embedder.
        roots_at_once: prompts per batch; bounds the memory.
    """
    if vocabulary(model) != tree.tokens:
        raise ConfigError(
            f"{model.name!r} has another vocabulary ({model.tokenizer.vocab_size} tokens) than the tree "
            f"({tree.vocab_size}); refresh a tree with the model it was grown for"
        )
    described = tree.header.get("embedder")
    if (described is None) != (embedder is None):
        wanted = f"the embedder {described['name']!r}" if described else "the primary's hidden states"
        raise ConfigError(f"the tree's contexts are described by {wanted}; refresh it with the same")
    tree.make_writable()
    [voice] = make_voices(model, [], chat=bool(tree.header.get("chat", True)), form=_form(tree))
    states = ContextStates(voice, embedder)
    basis = _basis(tree, states)
    for start in range(0, tree.num_roots, roots_at_once):
        fill_primary(tree, states, basis, range(start, min(start + roots_at_once, tree.num_roots)))
    tree.header["primary"] = {"name": model.name, "fingerprint": model.fingerprint()}
    return tree


def _form(tree: TokenTree) -> PromptFormat | None:
    """Returns how prompts were put to the primary when the tree was grown, None where nobody said."""
    forms, primary = tree.header.get("forms"), tree.header.get("primary")
    if isinstance(forms, dict) and isinstance(primary, dict) and primary.get("name") in forms:
        return PromptFormat.from_dict(forms[primary["name"]])
    told = tree.header.get("form")
    return None if told is None else PromptFormat.from_dict(told)


def _basis(tree: TokenTree, states: ContextStates) -> ContextBasis | None:
    """Returns the tree's own components, if it carries contexts and they fit the vectors' width."""
    if not tree.has("context") or "context_basis" not in tree.header:
        return None
    basis = ContextBasis.from_header(tree.header["context_basis"])
    if states.width != len(basis.contexts.mean):
        raise ConfigError(
            f"{states.voice.name!r} describes contexts by {states.width} numbers, but the tree's were fitted on "
            f"{len(basis.contexts.mean)}; grow the tree anew for a primary of another size"
        )
    return basis
