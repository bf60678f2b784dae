"""How well a text describes the picture in its prompt, by two towers that were taught to agree on such pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import DataError
from treegym.rewards.base import Request, Term
from treegym.tree.token_tree import TokenTree

__all__ = ["ImageText"]


class ImageText(Term):
    """Cosine of the whole text to the picture in the prompt (CLIP); a text that was cut off is compared, too.

    Args:
        model: the two towers: ``tiny-clip``, a directory, or a name on the hub.
    """

    kind = "image_text"
    deployable = True
    lazy = True
    at_truncation = True
    bounds = (-1.0, 1.0)

    def __init__(self, *, model: str = "tiny-clip", **common: Any) -> None:
        super().__init__(**common)
        self.model = model
        self._towers: Any = None

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        if self._towers is None:
            from treegym.models.vision.towers import load_towers

            self._towers = load_towers(self.model)
        roots = [source.roots[int(root)] for root in np.asarray(source.root_of(asked.nodes))]
        blind = next((root for root in roots if not root.image), None)
        if blind is not None:
            raise DataError(
                f"reward term {self.name!r} compares texts with pictures, and the prompt {blind.prompt[:60]!r} has "
                "none; use a tree of prompts with pictures, such as bundled:captions"
            )
        texts = [source.text(int(node)).strip() for node in asked.nodes]
        return self._towers.cosines([root.image for root in roots], texts)
