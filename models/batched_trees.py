"""Scoring trees with a back end that knows only rows: all contexts of all trees in few large batches.

Letters: n nodes of a tree, k ranks, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from treegym.models.base import Embeds, Scores, needed
from treegym.models.tree_scores import Branches, TreeScores, allowed_tokens, scores_from

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
    model: Scores, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
) -> list[TreeScores]:
    """Returns what `score_trees_naively` does, with one call per block of trees instead of one per tree."""
    allowed = allowed_tokens(model)
    results = []
    for block in _blocks(trees, model.tokenizer.vocab_size):
        contexts = [context for index in block for context in _contexts(trees[index])]
        logprobs = model.next_logprobs(contexts)  # [sum of n + 1, V]
        states = needed(model, Embeds).embed(contexts) if hidden else np.zeros((len(contexts), 0), np.float32)
        start = 0
        for index in block:
            rows = slice(start, start + trees[index].size + 1)
            results.append(scores_from(trees[index], logprobs[rows], states[rows], allowed, best=best, worst=worst))
            start = rows.stop
    return results


def score_trees_partly(
    model: Scores, trees: Sequence[Branches], *, best: int, given: int, scores_prompts: bool
) -> list[TreeScores]:
    """Returns as much as a server with `given` log-probabilities per position can say: nothing about unlikely tokens.

    Whole paths are scored, one prompt per leaf, where the server does that; no distribution is needed.
    Else tokens that are not among the likeliest get NaN; where none are told, nothing is ranked either.
    """
    contexts = [context for tree in trees for context in _contexts(tree)] if min(best, given) else []
    ids, values = _likeliest(model, contexts, best=best, given=given)
    logp = _by_leaves(model, trees) if scores_prompts else [np.full(tree.size, np.nan, np.float32) for tree in trees]
    results, start = [], 0
    for tree, scores in zip(trees, logp, strict=True):
        rows = slice(start, start + tree.size + 1)
        start = rows.stop
        best_ids = ids[rows] if contexts else np.zeros((tree.size + 1, 0), np.int32)
        best_logp = values[rows] if contexts else np.zeros((tree.size + 1, 0), np.float32)
        if not scores_prompts:
            hits = best_ids[tree.parents + 1] == tree.tokens[:, None]  # [n, k]
            scores[hits.any(axis=1)] = best_logp[tree.parents + 1][hits]
        none = np.zeros((tree.size + 1, 0))
        results.append(
            TreeScores(
                logp=scores,
                best_ids=best_ids,
                best_logp=best_logp,
                worst_ids=none.astype(np.int32),
                worst_logp=none.astype(np.float32),
                hidden=none.astype(np.float32),
            )
        )
    return results


def _likeliest(
    model: Scores, contexts: Sequence[Sequence[int]], *, best: int, given: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the likeliest tokens that are allowed in a tree, ids ``[B, k]`` (-1: no more) and log-probabilities."""
    if not contexts:
        return np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32)
    allowed = allowed_tokens(model)
    # enough that sufficiently many are left when the others are taken out
    ids, values = model.top_logprobs(contexts, min(best + int((~allowed).sum()), given))
    order = np.argsort(~allowed[ids], axis=1, kind="stable")[:, :best]
    ids, values = np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)
    return np.where(allowed[ids], ids, -1).astype(np.int32), values


def _by_leaves(model: Scores, trees: Sequence[Branches]) -> list[np.ndarray]:
    """Returns the log-probability of every node's token ``[n]`` of every tree, read off the paths to its leaves."""
    leaves = [(index, leaf) for index, tree in enumerate(trees) for leaf in _leaves(tree)]
    paths = [trees[index].path(leaf) for index, leaf in leaves]
    told = model.score([trees[index].prompt for index, _ in leaves], paths)
    logp = [np.full(tree.size, np.nan, np.float32) for tree in trees]
    for (index, node), values in zip(leaves, told, strict=True):
        for value in values[::-1]:
            logp[index][node] = value
            node = int(trees[index].parents[node])
    return logp


def _leaves(tree: Branches) -> list[int]:
    return np.setdiff1d(np.arange(tree.size), tree.parents).tolist()
