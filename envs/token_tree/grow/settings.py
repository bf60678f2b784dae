"""What a growth is told: how to populate, how wide, how deep, how much; checked at the door."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from treegym.errors import ConfigError, suggest
from treegym.models.base import Generates, Speaker, able
from treegym.models.readings import ReadsVocabulary
from treegym.tree.token_tree import Root

__all__ = ["MODES", "GrowSettings", "Judge", "Verifier", "Voice", "keeps_reading"]

MODES = ("mixed", "step", "answers")
Verifier = Callable[[Root, str], float]  # a root and an answer text -> score, NaN where there is no reference
Judge = Callable[[Sequence[str], Sequence[str]], np.ndarray]  # prompts, answers -> scores


@dataclass(frozen=True)
class GrowSettings:
    """How a tree is grown. Equal settings, models and prompts give equal bytes."""

    mode: str = "mixed"
    right: int = 50  # likely next tokens that a proposer may offer at a context
    wrong: int = 50  # unlikely ones
    max_children: int = 12
    max_tokens: int = 24  # deepest path, with its end
    max_nodes: int = 150  # a prompt's nodes: siblings are added as long as they and their closings fit
    shard: int = 32  # prompts grown together and written together; bounds the memory
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"the growth mode is {self.mode!r}.{suggest(self.mode, MODES)}")
        for name, least in (("right", 0), ("wrong", 0), ("max_children", 1), ("max_tokens", 1), ("shard", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.max_nodes < self.max_tokens + 1:
            raise ConfigError(
                f"max_nodes is {self.max_nodes}, too few for one path of max_tokens={self.max_tokens} and its root"
            )

    @property
    def best(self) -> int:
        """Likely tokens to ask a voice for: more than the children of two contexts never come to be looked at."""
        return max(min(self.right, 2 * self.max_children), 1)

    @property
    def worst(self) -> int:
        return min(self.wrong, 2 * self.max_children)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Voice:
    """A model that speaks in the growing: the primary or a teacher, in the primary's vocabulary."""

    model: Generates
    begin: Callable[[str], tuple[int, ...]]  # a prompt's text -> the ids its answer is a continuation of

    @property
    def name(self) -> str:
        return self.model.name


def keeps_reading(model: Speaker) -> bool:
    """Whether what a model has read of a tree is gone on from when the tree has grown.

    That rounds differently in the last bit than reading anew. Small models read anew: it costs them nothing, and their
    trees keep the bytes they always had.
    """
    return able(model, ReadsVocabulary) and model.reads_blocks
