"""Passages before teachers' prompts: what the primary does not know comes into the tree through them.

Only teachers read passages. The primary is asked, trained and evaluated without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from treegym.errors import ConfigError
from treegym.models.retrieval import Found, Retriever
from treegym.tree.token_tree import Root

__all__ = ["Retrieval"]


class Retrieval:
    """The passages of every prompt of a growth."""

    def __init__(self, retriever: Retriever, *, frame: str = "{passages}\n\n") -> None:
        """Nothing is searched yet.

        Args:
            retriever: finds passages.
            frame: what comes before a prompt's own form, with ``{passages}``, one per line.
        """
        if "{passages}" not in frame:
            raise ConfigError(f"the frame of passages is {frame!r}; it must hold {{passages}}")
        self.retriever, self.frame = retriever, frame
        self._found: dict[str, list[Found]] = {}

    def noted(self, prompts: Sequence[Root]) -> list[Root]:
        """Returns the prompts with the names and scores of their passages noted in ``extra["passages"]``."""
        fresh = sorted({root.prompt for root in prompts} - self._found.keys())
        self._found |= dict(zip(fresh, self.retriever.find(fresh), strict=True)) if fresh else {}
        return [replace(root, extra={**root.extra, "passages": self._names(root.prompt)}) for root in prompts]

    def before(self, prompt: str) -> str:
        """Returns what teachers read before a prompt: its passages in their frame, nothing where none is near."""
        if prompt not in self._found:
            [self._found[prompt]] = self.retriever.find([prompt])
        texts = [found.passage.text for found in self._found[prompt]]
        return self.frame.replace("{passages}", "\n".join(texts)) if texts else ""

    def to_dict(self) -> dict[str, Any]:
        """Returns what a tree's header says of it."""
        return {**self.retriever.to_dict(), "frame": self.frame}

    def _names(self, prompt: str) -> list[dict[str, Any]]:
        return [
            {"source": found.passage.source, "place": found.passage.place, "score": round(found.score, 4)}
            for found in self._found[prompt]
        ]
