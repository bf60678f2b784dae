"""What describes a context as a vector: the primary's hidden states, or an embedding of the text so far.

Letters: n nodes of a tree below its prompt, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treegym.envs.token_tree.grow.settings import Voice, keeps_reading
from treegym.errors import BackendError
from treegym.models.base import Embeds, needed
from treegym.models.embeddings import Embedder
from treegym.models.tree_scores import Branches, Known, Reading, TreeScores, read_trees, score_trees

__all__ = ["ContextStates", "Described", "check_finite"]


def check_finite(values: np.ndarray, name: str) -> None:
    """Raises BackendError where what a primary says or how it describes contexts is not a number."""
    if np.isnan(values).any():
        raise BackendError(
            f"the primary {name!r} gives log-probabilities that are no numbers; its weights are damaged, or its "
            "dtype is too narrow: try float32"
        )


@dataclass(frozen=True)
class Described:
    """Trees as the primary sees them."""

    trees: Sequence[Branches]
    scores: list[TreeScores]
    vectors: list[np.ndarray]  # of each tree's prompt and nodes [n + 1, D]
    reading: Reading | None  # the trees in the primary's memory, where it keeps them


class ContextStates:
    """Vectors of contexts; similarity and the context columns are made of them."""

    def __init__(self, voice: Voice, embedder: Embedder | None = None) -> None:
        self.voice = voice
        self._embedder = embedder

    @property
    def width(self) -> int:
        """D, found by asking for one vector."""
        return int(self.of_contexts([[self.voice.model.tokenizer.eos_id]]).shape[1])

    def described(self, trees: Sequence[Branches], known: Known | None = None) -> Described:
        """Returns the primary's scores of trees, and the vectors of their prompts and nodes."""
        keeps = self._embedder is None and keeps_reading(self.voice.model)
        reading = read_trees(self.voice.model, trees, known) if keeps else None
        if reading is not None:
            scores = reading.scores(hidden=True)
        else:
            scores = score_trees(self.voice.model, trees, hidden=self._embedder is None)
        if self._embedder is None:
            return Described(trees, scores, [score.hidden for score in scores], reading)
        contexts = [tree.context(node) for tree in trees for node in range(-1, tree.size)]
        cuts = np.cumsum([tree.size + 1 for tree in trees])[:-1]
        return Described(trees, scores, np.split(self.of_contexts(contexts), cuts), None)

    def after(self, described: Described, places: Sequence[tuple[int, int]], tokens: Sequence[int]) -> np.ndarray:
        """Returns the vector after one more token at each (tree, node) of what was described ``[B, D]``."""
        if described.reading is not None:
            return described.reading.states_after(places, tokens)
        trees = described.trees
        return self.of_contexts(
            [[*trees[tree].context(node), token] for (tree, node), token in zip(places, tokens, strict=True)]
        )

    def of_contexts(self, contexts: Sequence[Sequence[int]]) -> np.ndarray:
        """Returns ``[B, D]`` of contexts given as token ids."""
        if self._embedder is None:
            return needed(self.voice.model, Embeds).embed(contexts)
        return self._embedder.embed([self.voice.model.tokenizer.decode(context) for context in contexts])

    def of_prompts(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Returns ``[B, D]`` of prompts as a whole: the mean over the vectors of their beginnings, all of them."""
        if self._embedder is not None:
            return self.of_contexts(prompts)
        beginnings = [prompt[: end + 1] for prompt in prompts for end in range(len(prompt))]
        cuts = np.cumsum([len(prompt) for prompt in prompts])[:-1]
        return np.stack([part.mean(axis=0) for part in np.split(self.of_contexts(beginnings), cuts)])
