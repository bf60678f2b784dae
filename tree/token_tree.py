"""TokenTree: an append-only arena of token nodes, with its file, its checks and its models."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from treegym.tree.arena import SPLITS, Arena, Root
from treegym.tree.storage import open_tree, save_tree

__all__ = ["BUNDLED", "SPLITS", "Root", "TokenTree"]

BUNDLED = Path(__file__).parent / "data" / "bundled.tree"
GROWING = "treegym.envs.token_tree.grow.refresh"


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

    def refresh(self, model: Any, **options: Any) -> TokenTree:
        """Recomputes the primary's columns in one pass, after the primary changed.

        The work belongs to growing, which knows models and lives above this room: its address is looked up.
        """
        refreshed: TokenTree = importlib.import_module(GROWING).refresh(self, model, **options)
        return refreshed

    def validate(self) -> None:
        """Checks every invariant in one compiled pass; raises DataError naming the first node that breaks one."""
        from treegym.tree.validation import validate_tree  # the compiler is loaded when it is needed

        validate_tree(self)

    @property
    def is_closed(self) -> bool:
        """Whether every path ends in a real terminal."""
        from treegym.tree.validation import count_frontier

        return self.size > 0 and count_frontier(self) == 0

    def __repr__(self) -> str:
        return f"TokenTree({self.num_roots:,} roots, {self.size:,} nodes, {self.num_teachers} teachers)"
