"""Pairs of answers of which one is better: right over wrong ones to a prompt, siblings of a closed tree, or a file's.

Letters: N nodes, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from treegym.models.base import Speaker
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.rewards.learned.preference import read_pairs
from treegym.tree.values import values

__all__ = ["Pair", "answer_pairs", "sibling_pairs", "walk_pairs", "written_pairs"]

LEAST_GAP = 1e-3  # between two siblings: less is rounding, or no difference that is worth learning


class Pair(NamedTuple):
    """Two continuations of a context."""

    context: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]
    weight: float = 1.0


def answer_pairs(
    context: Sequence[int], answers: Sequence[Sequence[int]], right: Sequence[bool], rng: np.random.Generator
) -> list[Pair]:
    """Returns right answers over wrong ones to one prompt, each of the rarer sort once, with a partner drawn at random.

    Equal answers count once: a model that is sure of itself would otherwise be compared with itself.
    """
    verdict = {tuple(answer): bool(ok) for answer, ok in zip(answers, right, strict=True) if len(answer)}
    good = [answer for answer, ok in verdict.items() if ok]
    bad = [answer for answer, ok in verdict.items() if not ok]
    count = min(len(good), len(bad))
    better = [good[place] for place in rng.permutation(len(good))[:count]]
    worse = [bad[place] for place in rng.permutation(len(bad))[:count]]
    return [Pair(context, w, x) for w, x in zip(better, worse, strict=True)]


def walk_pairs(tree: Any, roots: Sequence[int], paths: Sequence[Sequence[int]], right: Sequence[bool], *,
               seed: int) -> list[Pair]:  # fmt: skip
    """Returns right walks over wrong ones of each root.

    Args:
        tree: the tree.
        roots: of each walk, its root.
        paths: of each walk, the nodes below the root.
        right: whether each came to a correct end.
        seed: of whom each is held against.
    """
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    for root in dict.fromkeys(roots):
        mine = [place for place, other in enumerate(roots) if other == root]
        answers = [tree.token[np.asarray(paths[place], np.int64)].tolist() for place in mine]
        pairs += answer_pairs(tree.roots[root].tokens, answers, [right[place] for place in mine], rng)
    return pairs


def sibling_pairs(world: Any, roots: Sequence[int]) -> list[Pair]:
    r"""Returns the best child of every node over each worse one, weighted by the exact gap in value.

    The gap is :math:`Q^\pi(w) - Q^\pi(l)`, the difference of the expected returns when the primary goes on from either
    child (`treegym.tree.values`). Where steps are known only by whole answers, which one went wrong has to be guessed
    or labelled (Step-DPO, Lai et al. 2024, https://arxiv.org/abs/2406.18629); a closed tree knows it of every step.

    Args:
        world: a `TreeWorld` over a closed tree: its reward, its ends, its budget of tokens.
        roots: whose nodes are compared.
    """
    tree = world.tree
    over = np.asarray(world.tables.ends) | (tree.depth >= world.token_limit)
    pays = np.where(tree.parent < 0, 0.0, world.tables.cells["pays"])
    found = values(tree, "primary", reward=pays, terminal=over).action_value
    wanted = np.isin(world.tables.root_index, np.asarray(roots))
    pairs: list[Pair] = []
    for node in np.flatnonzero(wanted & ~over & (tree.child_count > 1)).tolist():
        children = tree.children(node)
        worth = found[children]
        best = int(worth.argmax())
        if worth[best] - worth.min() < LEAST_GAP:
            continue
        root = int(world.tables.root_index[node])
        context = [*tree.roots[root].tokens, *tree.path(node).tolist()]
        for other, gap in enumerate((worth[best] - worth).tolist()):
            if gap >= LEAST_GAP:
                pairs.append(Pair(context, [int(tree.token[children[best]])], [int(tree.token[children[other]])], gap))
    return pairs


def written_pairs(path: str, model: Speaker, form: PromptFormat) -> list[Pair]:
    """Returns the pairs of a JSONL file, such as `treegym data preferences` writes, in a model's own tokens.

    Args:
        path: lines of ``prompt``, ``chosen`` and ``rejected``: whole answers, which end where they end.
        model: whose tokens.
        form: how prompts are put.
    """
    begin, encode, end = form.begin(model), model.tokenizer.encode, model.tokenizer.eos_id
    return [
        Pair(list(begin(pair.prompt)), [*encode(pair.chosen), end], [*encode(pair.rejected), end])
        for pair in read_pairs(path)
    ]
