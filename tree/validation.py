"""The invariants of a token tree, checked in one compiled pass over its nodes."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from treegym.errors import DataError
from treegym.tree.flags import ALL, END, EOS, EXPANDED
from treegym.tree.pictures import FIRST_PICTURE_TOKEN, tokens_of_other_pictures

__all__ = ["count_frontier", "validate_tree"]

_LOGP_SLACK = 1e-3  # rounding may lift a log-probability just above 0
_PROBLEMS = {
    1: "its parent is not an earlier node",
    2: "its child range leaves the tree or does not come after it",
    3: "it is not inside its parent's child range",
    4: "its depth is not its parent's plus one",
    5: "its token is outside the vocabulary",
    6: "it carries the same token as a sibling",
    7: "it is a root without an entry in the table of roots, or the other way round",
    8: "it has unknown flags, or flags that contradict its children or its token",
    9: "its prior is not a finite log-probability",
    10: "a teacher's log-probability is neither NaN nor a log-probability",
    11: "its proposers name a model the tree does not have",
    12: "its similarity is outside -1 to 1",
    13: "its verdict or judge score is infinite",
    14: "its child weight is negative or infinite",
    15: "it was sampled under a log-probability that is none",
}


@numba.njit(cache=True)
def _first_problem(
    token: Any,
    parent: Any,
    first_child: Any,
    child_count: Any,
    depth: Any,
    flags: Any,
    prior: Any,
    proposers: Any,
    similarity: Any,
    verdict: Any,
    judge: Any,
    root_node: Any,
    vocab: Any,
    eos: Any,
    all_proposers: Any,
    slack: Any,
) -> Any:
    """Returns (problem, node) of the first broken invariant, or (0, number of children in all)."""
    nodes = len(token)
    seen = np.full(vocab, -1, np.int64)  # the last parent under which a token was seen
    next_root, children = 0, np.int64(0)
    for i in range(nodes):
        above, first, count = parent[i], np.int64(first_child[i]), np.int64(child_count[i])
        if above < -1 or above >= i:
            return 1, i
        if (first == -1) != (count == 0) or (first != -1 and (first <= i or first + count > nodes)):
            return 2, i
        children += count
        if flags[i] & ~ALL or (count > 0 and not flags[i] & EXPANDED) or (count > 0 and flags[i] & EOS):
            return 8, i
        if above == -1:
            if next_root >= len(root_node) or root_node[next_root] != i or depth[i] != 0:
                return 7, i
            next_root += 1
            if token[i] < -1 or token[i] >= vocab:
                return 5, i
        else:
            start = np.int64(first_child[above])
            if start == -1 or i < start or i >= start + child_count[above]:
                return 3, i
            if depth[i] != depth[above] + 1:
                return 4, i
            if token[i] < 0 or token[i] >= vocab:
                return 5, i
            if seen[token[i]] == above:
                return 6, i
            seen[token[i]] = above
            if (token[i] == eos) != (flags[i] & EOS != 0):
                return 8, i
        if not (prior[i] <= slack and prior[i] > -np.inf):
            return 9, i
        if proposers[i] & ~all_proposers:
            return 11, i
        if abs(similarity[i]) > 1.01:
            return 12, i
        if np.isinf(verdict[i]) or np.isinf(judge[i]):
            return 13, i
    if next_root != len(root_node):
        return 7, root_node[next_root]
    # Every non-root lies in its parent's range; if the ranges hold no more slots than that, they hold nothing else.
    if children != nodes - len(root_node):
        return 2, 0
    return 0, children


@numba.njit(cache=True)
def _frontier(first_child: Any, flags: Any) -> Any:
    count = 0
    for i in range(len(first_child)):
        if first_child[i] == -1 and not flags[i] & END:
            count += 1
    return count


def validate_tree(tree: Any) -> None:
    """Raises DataError naming the first node that breaks an invariant, and how."""
    all_proposers = np.uint32(2 ** (tree.num_teachers + 1) - 1)
    problem, node = _first_problem(
        tree.token, tree.parent, tree.first_child, tree.child_count, tree.depth, tree.flags, tree.prior,
        tree.proposers, tree.similarity.astype(np.float32), tree.verdict, tree.judge,
        tree.root_node, tree.vocab_size, tree.eos_id, all_proposers, _LOGP_SLACK,
    )  # fmt: skip
    if not problem:
        problem, node = _teacher_problem(tree) or _weight_problem(tree) or _sample_problem(tree) or (0, 0)
    if problem:
        raise DataError(f"the tree is damaged at node {node}: {_PROBLEMS[problem]}")
    described = list(tree.roots)  # parsing the table of a file checks it, too
    if len(described) != tree.num_roots:
        raise DataError(f"the tree has {tree.num_roots} root nodes, but its table describes {len(described)}")
    for index, root in enumerate(described):
        if any(not 0 <= token < tree.vocab_size for token in root.tokens if token < FIRST_PICTURE_TOKEN):
            raise DataError(f"the tree is damaged at root {index}: its prompt has a token outside the vocabulary")
        if tokens_of_other_pictures(root.tokens, root.image):
            raise DataError(
                f"the tree is damaged at root {index}: its prompt has a token of a picture it does not hold"
            )


def _teacher_problem(tree: Any, block: int = 2**20) -> tuple[int, int] | None:
    for start in range(0, tree.size, block):  # in blocks, so that a mapped file never comes into memory whole
        values = tree.teacher_logp[start : start + block]
        bad = (values > _LOGP_SLACK) | np.isinf(values)
        if bad.any():
            return 10, start + int(np.flatnonzero(bad.any(axis=1))[0])
    return None


def _weight_problem(tree: Any) -> tuple[int, int] | None:
    if not tree.has("weight"):
        return None
    bad = (tree.weight < 0) | np.isinf(tree.weight)
    return (14, int(np.flatnonzero(bad)[0])) if bad.any() else None


def _sample_problem(tree: Any) -> tuple[int, int] | None:
    if not tree.has("sampled_logp"):
        return None
    bad = (tree.sampled_logp > _LOGP_SLACK) | np.isinf(tree.sampled_logp)
    return (15, int(np.flatnonzero(bad.any(axis=1))[0])) if bad.any() else None


def count_frontier(tree: Any) -> int:
    """Returns how many nodes are neither terminal nor expanded."""
    return int(_frontier(tree.first_child, tree.flags))
