"""Scores of a whole tree of tokens under a prompt: the question, the answer, and the naive way to get it.

Letters: n nodes of one tree below its prompt, k ranks, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from treegym.models.base import Embeds, FoldsEnds, Scores, Speaker, TextTokenizer, TokenIds, able, needed

__all__ = [
    "Branches",
    "Hopeless",
    "Known",
    "RanksTrees",
    "Reading",
    "ReadsTrees",
    "ScoresTrees",
    "TreeScores",
    "Trie",
    "allowed_tokens",
    "no_opinions",
    "rank_trees",
    "read_trees",
    "score_trees",
    "score_trees_naively",
    "scores_from",
]

Hopeless = Callable[[int, Mapping[int, list[int]]], Collection[int]]  # tokens written, what ended -> rows to drop


@dataclass(frozen=True)
class Branches:
    """A prompt and a tree of tokens below it. Parents come before their children."""

    prompt: tuple[int, ...]
    tokens: np.ndarray  # [n] int32
    parents: np.ndarray  # [n] int32, -1: directly after the prompt

    @property
    def size(self) -> int:
        return len(self.tokens)

    def depths(self) -> np.ndarray:
        """Returns the tokens below the prompt of every node ``[n] int32``, 1 for a first token."""
        depth = np.zeros(self.size, np.int32)
        for node, parent in enumerate(self.parents):
            depth[node] = 1 if parent < 0 else depth[parent] + 1
        return depth

    def path(self, node: int) -> list[int]:
        """Returns the tokens below the prompt down to a node; -1 gives the empty path."""
        path: list[int] = []
        while node >= 0:
            path.append(int(self.tokens[node]))
            node = int(self.parents[node])
        return path[::-1]

    def context(self, node: int) -> list[int]:
        return [*self.prompt, *self.path(node)]


class Trie:
    """Texts of tokens that begin alike, as one tree.

    Attributes:
        branches: the tree; its prompt is what all texts begin with.
        nodes: where each text ends ``[texts] int64``, -1 at the prompt.
    """

    def __init__(self, texts: Sequence[TokenIds]) -> None:
        """`texts` are not empty and have the same first token."""
        first, last = min(map(tuple, texts)), max(map(tuple, texts))  # what these two share, all do
        shared = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        children: dict[tuple[int, int], int] = {}
        tokens: list[int] = []
        parents: list[int] = []
        ends = []
        for text in texts:
            node = -1
            for token in text[shared:]:
                child = children.get((node, token))
                if child is None:
                    child = children[node, token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                node = child
            ends.append(node)
        prompt = tuple(int(token) for token in first[:shared])
        self.branches = Branches(prompt, np.array(tokens, np.int32), np.array(parents, np.int32))
        self.nodes = np.array(ends, np.int64)


@dataclass(frozen=True)
class TreeScores:
    """What a model says about one tree. Position 0 is the prompt itself, position i + 1 node i.

    An id of -1 means that a model has no more to say, a log-probability of NaN that it has no opinion.
    """

    logp: np.ndarray  # [n] float32, log-probability of each node's token after its parent
    best_ids: np.ndarray  # [n + 1, k] int32, likeliest next tokens, best first
    best_logp: np.ndarray  # [n + 1, k] float32
    worst_ids: np.ndarray  # [n + 1, w] int32, unlikeliest next tokens, unlikeliest first
    worst_logp: np.ndarray  # [n + 1, w] float32
    hidden: np.ndarray  # [n + 1, D] float32 last hidden states, or [n + 1, 0] if not asked


class Reading(Protocol):
    """Trees that a model has read and keeps, to be scored and gone on from."""

    trees: Sequence[Branches]

    def scores(self, *, best: int = 1, worst: int = 0, hidden: bool = False) -> list[TreeScores]:
        """Returns what `score_trees` does."""
        ...

    def states_after(self, nodes: Sequence[tuple[int, int]], tokens: Sequence[int]) -> np.ndarray:
        """Returns the hidden state of a token after each node ``[B, D] float32``; nodes of a tree side by side."""
        ...

    def greedy(
        self,
        nodes: Sequence[tuple[int, int]],
        tokens: Sequence[int],
        *,
        limits: Sequence[int],
        stops: Collection[int],
        hopeless: Hopeless | None = None,
    ) -> list[list[int] | None]:
        """Returns the likeliest continuation after each token that follows a node, None where it was dropped.

        Args:
            nodes: (tree, node) pairs, those of a tree side by side; node -1 is the prompt.
            tokens: what follows them.
            limits: most tokens of each continuation.
            stops: tokens that end a continuation; they are part of it.
            hopeless: asked after every token with how many were written and the rows that ended so far (row ->
                continuation; all of a tree's rows are in one batch): which rows need not be finished.
        """
        ...


@dataclass(frozen=True)
class Known:
    """Smaller trees after the same prompts that a model has read, and where their nodes are in larger ones."""

    reading: Reading
    nodes: Sequence[np.ndarray]  # per tree [n] int64: the node's number in what was read, -1 for a new one


class ScoresTrees(Protocol):
    """A back end with a faster way to score a tree than path by path."""

    def score_trees(
        self, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
    ) -> list[TreeScores]: ...


class RanksTrees(Protocol):
    """A back end that ranks next tokens without scoring the nodes."""

    def rank_trees(self, trees: Sequence[Branches], *, best: int, worst: int) -> list[TreeScores]: ...


class ReadsTrees(Protocol):
    """A back end that keeps trees in its memory, to go on from them."""

    def read_trees(self, trees: Sequence[Branches], known: Known | None = None) -> Reading | None: ...


class _Tokenized(Protocol):
    tokenizer: TextTokenizer


def allowed_tokens(model: _Tokenized) -> np.ndarray:
    """Returns which tokens are allowed in a tree ``[V] bool``: those that write something, and the one end."""
    pieces = model.tokenizer.pieces()
    allowed = np.array([len(piece) > 0 for piece in pieces], bool)
    if able(model, FoldsEnds):
        allowed[[*model.ends, *model.barred]] = False
    allowed[model.tokenizer.eos_id] = True
    return allowed


def score_trees(
    model: Speaker, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
) -> list[TreeScores]:
    """Scores whole trees in the fastest exact way the model offers.

    Args:
        model: any model; one that gives words only has no opinions (NaN, nothing ranked).
        trees: trees in the model's own vocabulary.
        best: how many of the likeliest next tokens to return for the prompt and every node; 0 costs nothing.
        worst: how many of the unlikeliest.
        hidden: whether to return hidden states.
    """
    if able(model, ScoresTrees):
        return model.score_trees(trees, best=best, worst=worst, hidden=hidden)
    if not able(model, Scores) and not hidden:
        return [no_opinions(tree) for tree in trees]
    return score_trees_naively(needed(model, Scores), trees, best=best, worst=worst, hidden=hidden)


def rank_trees(model: Speaker, trees: Sequence[Branches], *, best: int, worst: int) -> list[TreeScores]:
    """Returns what `score_trees` does, whose log-probabilities of nodes may be NaN: only the ranks are wanted."""
    if able(model, RanksTrees):
        return model.rank_trees(trees, best=best, worst=worst)
    return score_trees(model, trees, best=best, worst=worst)


def read_trees(model: Speaker, trees: Sequence[Branches], known: Known | None = None) -> Reading | None:
    """Returns trees in a model's memory, None for a back end that keeps none; what is known is not read again."""
    return model.read_trees(trees, known) if able(model, ReadsTrees) else None


def no_opinions(tree: Branches) -> TreeScores:
    """Returns what a model that gives words only says of a tree: NaN for every token, nothing ranked."""
    ids, values = np.zeros((tree.size + 1, 0), np.int32), np.zeros((tree.size + 1, 0), np.float32)
    return TreeScores(np.full(tree.size, np.nan, np.float32), ids, values, ids, values, values)


def score_trees_naively(
    model: Scores, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
) -> list[TreeScores]:
    """Scores every node's path on its own: the definition, and the way for back ends without tree attention."""
    allowed = allowed_tokens(model)
    results = []
    for tree in trees:
        contexts = [tree.context(node) for node in range(-1, tree.size)]
        states = needed(model, Embeds).embed(contexts) if hidden else np.zeros((len(contexts), 0), np.float32)
        results.append(scores_from(tree, model.next_logprobs(contexts), states, allowed, best=best, worst=worst))
    return results


def scores_from(
    tree: Branches, logprobs: np.ndarray, states: np.ndarray, allowed: np.ndarray, *, best: int, worst: int
) -> TreeScores:
    """Returns the scores of a tree whose distributions ``[n + 1, V]`` and states ``[n + 1, D]`` are at hand."""
    count = int(allowed.sum())
    falling = np.argsort(np.where(allowed, -logprobs, np.inf), axis=-1, kind="stable")[:, : min(best, count)]
    rising = np.argsort(np.where(allowed, logprobs, np.inf), axis=-1, kind="stable")[:, : min(worst, count)]
    return TreeScores(
        logp=logprobs[tree.parents + 1, tree.tokens].astype(np.float32),
        best_ids=falling.astype(np.int32),
        best_logp=np.take_along_axis(logprobs, falling, axis=-1),
        worst_ids=rising.astype(np.int32),
        worst_logp=np.take_along_axis(logprobs, rising, axis=-1),
        hidden=states,
    )
