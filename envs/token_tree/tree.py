"""TokenTree: an append-only arena of token nodes, with its file, its checks and its models."""

from __future__ import annotations

import os
from typing import Any

from treegym.envs.token_tree.arena import SPLITS, Arena, Root
from treegym.envs.token_tree.storage import open_tree, save_tree
from treegym.models.base import LanguageModel

__all__ = ["SPLITS", "Root", "TokenTree"]


class TokenTree(Arena):
    """A tree of tokens under many prompts. Every column is an attribute: ``tree.token``, ``tree.prior``, ...

    Make one with `TokenTree.empty`, `TokenTree.open` or `synthetic_tree`. Trees that were opened from a file are
    memory-mapped and read-only; the first change copies them into memory.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> TokenTree:
        """Returns the tree in a `.tree` file, memory-mapped; raises DataError for a file that is not a sound one."""
        return open_tree(path, cls)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the tree to a `.tree` file: to a temporary name first, then renamed."""
        save_tree(self, path)

    def refresh(self, model: LanguageModel, **options: Any) -> TokenTree:
        """Recomputes the primary's columns in one pass, after the primary changed; see `grow_refresh.refresh`."""
        from treegym.envs.token_tree.grow_refresh import refresh  # growing loads more than walking needs

        return refresh(self, model, **options)

    def validate(self) -> None:
        """Checks every invariant in one compiled pass; raises DataError naming the first node that breaks one."""
        from treegym.envs.token_tree.validation import validate_tree  # the compiler is loaded when it is needed

        validate_tree(self)

    @property
    def is_closed(self) -> bool:
        """Whether every path ends in a real terminal."""
        from treegym.envs.token_tree.validation import count_frontier

        return self.size > 0 and count_frontier(self) == 0

    def __repr__(self) -> str:
        return f"TokenTree({self.num_roots:,} roots, {self.size:,} nodes, {self.num_teachers} teachers)"
