"""The noun at the centre: a token tree in flat arrays, its file, its checks, its exact optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegym.registry import lazy_face

if TYPE_CHECKING:
    from treegym.tree.opening import load_tree
    from treegym.tree.roots import Root
    from treegym.tree.synthetic import synthetic_tree
    from treegym.tree.token_tree import TokenTree

__all__ = ["Root", "TokenTree", "load_tree", "synthetic_tree"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Root": "roots",
        "TokenTree": "token_tree",
        "load_tree": "opening",
        "synthetic_tree": "synthetic",
    },
)
