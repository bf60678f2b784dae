"""Which answer every end of a tree states: texts whose canonical answers are equal form a cluster of their prompt."""

from __future__ import annotations

from collections import Counter

import numpy as np

from treegym.models import tasks
from treegym.rewards.answers import stated_answer
from treegym.tree.flags import END
from treegym.tree.token_tree import TokenTree

__all__ = ["answer_clusters", "canonical"]


def answer_clusters(tree: TokenTree) -> np.ndarray:
    """Returns the cluster of every end ``[N] int32``; -1 elsewhere, and where a text states no answer.

    The answers of a prompt are numbered in the order of the arena.
    """
    clusters = np.full(tree.size, -1, np.int32)
    ends = np.flatnonzero((tree.flags & END) != 0)
    known: dict[tuple[int, float | str], int] = {}
    used: Counter[int] = Counter()
    prompts = tree.prompts
    bundled = [any(kind.matches(prompt) for kind in tasks.KINDS.values()) for prompt in prompts]
    for end, root in zip(ends.tolist(), tree.root_of(ends).tolist() if len(ends) else [], strict=True):
        stated = canonical(tree.text(end), bundled=bundled[root])
        if stated is None:
            continue
        if (root, stated) not in known:
            known[root, stated] = used[root]
            used[root] += 1
        clusters[end] = known[root, stated]
    return clusters


def canonical(text: str, *, bundled: bool = False) -> float | str | None:
    """Returns what texts that state the same answer have in common: a number by value, or the plain words.

    Texts of the bundled tasks state the result after their last step, or nothing.
    """
    if bundled:
        return tasks.final_answer(text)
    answer = stated_answer(text)
    try:
        return float(answer.replace(",", ""))
    except ValueError:
        return answer or None
