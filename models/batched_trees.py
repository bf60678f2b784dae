"""Scoring trees with a back end that knows only rows: all contexts of all trees in few large batches.

Letters: n nodes of a tree, k ranks, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from treegym.models.base import LanguageModel
from treegym.models.tree_scores import Branches, TreeScores, allowed_tokens

__all__ = ["score_trees_in_batches", "score_trees_partly"]

BLOCK = 2**25  # log-probabilities held at a time, 128 MB


def _blocks(trees: Sequence[Branches], size: int) -> Iterator[list[int]]:
    """Yields indices of trees whose log-probabilities fit into memory together."""
    block: list[int] = []
    held = 0
    for index, tree in enumerate(trees):
        rows = tree.size + 1
        if block and (held + rows) * size > BLOCK:
            yield block
            block, held = [], 0
        block.append(index)
        held += rows
    if block:
        yield block


def _contexts(tree: Branches) -> list[list[int]]:
    return [tree.context(node) for node in range(-1, tree.size)]


def score_trees_in_batches(
    model: LanguageModel, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
) -> list[TreeScores]:
    """Returns what `score_trees_naively` does, asked in one call a block of trees instead of one a tree."""
    allowed = allowed_tokens(model)
    results = []
    for block in _blocks(trees, model.tokenizer.vocab_size):
        contexts = [context for index in block for context in _contexts(trees[index])]
        logprobs = model.next_logprobs(contexts)  # [sum of n + 1, V]
        states = model.embed(contexts) if hidden else np.zeros((len(contexts), 0), np.float32)
        start = 0
        for index in block:
            rows = slice(start, start + trees[index].size + 1)
            results.append(_ranked(trees[index], logprobs[rows], states[rows], allowed, best, worst))
            start = rows.stop
    return results


def _ranked(
    tree: Branches, logprobs: np.ndarray, states: np.ndarray, allowed: np.ndarray, best: int, worst: int
) -> TreeScores:
    count = int(allowed.sum())
    falling = np.argsort(np.where(allowed, -logprobs, np.inf), axis=-1, kind="stable")[:, : min(best, count)]
    rising = np.argsort(np.where(allowed, logprobs, np.inf), axis=-1, kind="stable")[:, : min(worst, count)]
    return TreeScores(
        logp=logprobs[tree.parents + 1, tree.tokens],
        best_ids=falling.astype(np.int32),
        best_logp=np.take_along_axis(logprobs, falling, axis=-1),
        worst_ids=rising.astype(np.int32),
        worst_logp=np.take_along_axis(logprobs, rising, axis=-1),
        hidden=states,
    )


def score_trees_partly(
    model: LanguageModel, trees: Sequence[Branches], *, best: int, given: int, scores_prompts: bool
) -> list[TreeScores]:
    """Returns as much as a server with `given` log-probabilities a position can say: nothing about unlikely tokens.

    Tokens that it has no opinion on get NaN; where it gives no log-probabilities at all, nothing is ranked either.
    """
    results = []
    for tree in trees:
        contexts = _contexts(tree)
        likely = min(best, given)
        ids, values = (
            model.top_logprobs(contexts, likely)
            if likely
            else (np.zeros((len(contexts), 0), np.int32), np.zeros((len(contexts), 0), np.float32))
        )
        logp = np.full(tree.size, np.nan, np.float32)
        if scores_prompts:
            steps = [contexts[parent + 1] for parent in tree.parents]
            logp = np.array([row[0] for row in model.score(steps, [[int(t)] for t in tree.tokens])], np.float32)
        elif likely:
            hits = ids[tree.parents + 1] == tree.tokens[:, None]  # [n, k]
            known = hits.any(axis=1)
            logp[known] = values[tree.parents + 1][hits]
        none = np.zeros((len(contexts), 0))
        results.append(
            TreeScores(
                logp=logp,
                best_ids=ids,
                best_logp=values,
                worst_ids=none.astype(np.int32),
                worst_logp=none.astype(np.float32),
                hidden=none.astype(np.float32),
            )
        )
    return results
