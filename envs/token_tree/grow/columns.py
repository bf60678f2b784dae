"""What models say of the nodes of a tree: every column filled, one pass per model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treegym.envs.token_tree.grow.basis import ContextBasis
from treegym.envs.token_tree.grow.settings import Judge, Verifier, Voice
from treegym.envs.token_tree.grow.states import ContextStates, Described, check_finite
from treegym.models.base import Speaker
from treegym.models.tree_scores import Branches, Known, read_trees, score_trees
from treegym.tree.flags import END, PUNCTUATION
from treegym.tree.token_tree import TokenTree

__all__ = [
    "LOWEST",
    "branches_of",
    "checked_prior",
    "cosine",
    "ending_tokens",
    "fill_ends",
    "fill_primary",
    "fill_teacher",
    "own_choices",
    "vocabulary",
]

LOWEST = -60_000.0  # float16 ends at -65,504; nothing a model says is told apart below this


def vocabulary(model: Speaker) -> list[str]:
    """Returns what each token id stands for, bytes as Latin-1 characters."""
    return [piece.decode("latin-1") for piece in model.tokenizer.pieces()]


def ending_tokens(model: Speaker) -> np.ndarray:
    """Returns the flag of tokens whose text may end a sentence ``[V] uint16``."""
    ends = [piece.rstrip().endswith((b".", b"!", b"?")) for piece in model.tokenizer.pieces()]
    return np.where(ends, PUNCTUATION, 0).astype(np.uint16)


def branches_of(tree: TokenTree, voice: Voice, roots: Sequence[int]) -> list[Branches]:
    """Returns the nodes below some roots as branches after the voice's own form of the prompt.

    Node i of a branch is the i-th node after the root: a root's nodes stand together in the arena, parents first.
    """
    bounds = np.append(tree.root_node, tree.size)
    branches = []
    for root in roots:
        start, stop = int(bounds[root]), int(bounds[root + 1])
        parents = tree.parent[start + 1 : stop].astype(np.int64) - start - 1  # -1 at the root's children
        tokens = tree.token[start + 1 : stop].astype(np.int32)
        branches.append(Branches(voice.begin(tree.roots[root].prompt), tokens, parents.astype(np.int32)))
    return branches


def fill_primary(
    tree: TokenTree,
    states: ContextStates,
    basis: ContextBasis | None,
    roots: Sequence[int],
    *,
    known: Known | None = None,
) -> None:
    """Fills prior, similarity and context of the nodes below some roots, in one pass over what is new."""
    branches = branches_of(tree, states.voice, roots)
    seen = states.described(branches, known)
    choices = own_choices(states, seen)
    for root, branch, score, vector, choice in zip(roots, branches, seen.scores, seen.vectors, choices, strict=True):
        nodes = int(tree.root_node[root]) + 1 + np.arange(branch.size)
        tree.prior[nodes] = checked_prior(score.logp, states.voice.name)
        tree.similarity[nodes] = cosine(vector[1:], choice[branch.parents + 1])
        if basis is not None:
            tree.context[nodes] = basis.contexts.encode(vector[1:])
    if basis is not None:
        prompts = states.of_prompts([branch.context(-1) for branch in branches])
        tree.context[tree.root_node[list(roots)]] = basis.prompts.encode(prompts)


def checked_prior(logp: np.ndarray, name: str) -> np.ndarray:
    """Returns log-probabilities within what a tree holds; raises BackendError for a primary that gives none."""
    check_finite(logp, name)
    return np.clip(logp, LOWEST, 0.0)


def own_choices(states: ContextStates, seen: Described) -> list[np.ndarray]:
    """Returns the vector after the model's likeliest token, for the prompt and every node with children ``[n + 1, D]``.

    Where that token is a child, its vector is known already; the others are asked for in one batched call.
    """
    choices, missing, tokens = [], [], []
    for number, (branch, score, vector) in enumerate(zip(seen.trees, seen.scores, seen.vectors, strict=True)):
        choice = np.zeros_like(vector)
        owner = branch.parents + 1  # [n]
        own = np.flatnonzero(branch.tokens == score.best_ids[owner, 0])  # children that are their parent's choice
        choice[owner[own]] = vector[own + 1]
        for context in np.setdiff1d(owner, owner[own]):
            missing.append((number, int(context) - 1))
            tokens.append(int(score.best_ids[context, 0]))
        choices.append(choice)
    if missing:
        for (number, node), vector in zip(missing, states.after(seen, missing, tokens), strict=True):
            choices[number][node + 1] = vector
    return choices


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine of rows ``[n, D]``, 0 where one of them is zero."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0)


def fill_teacher(
    tree: TokenTree, voice: Voice, column: int, roots: Sequence[int], *, known: Known | None = None
) -> None:
    """Fills one teacher's log-probabilities of the nodes below some roots, in one pass of the teacher."""
    branches = branches_of(tree, voice, roots)
    reading = read_trees(voice.model, branches, known) if known is not None else None
    scores = score_trees(voice.model, branches, best=0) if reading is None else reading.scores(best=0)
    for root, branch, score in zip(roots, branches, scores, strict=True):
        nodes = int(tree.root_node[root]) + 1 + np.arange(branch.size)
        tree.teacher_logp[nodes, column] = np.clip(score.logp, LOWEST, 0.0)


def fill_ends(tree: TokenTree, verify: Verifier | None, judge: Judge | None) -> None:
    """Fills the verdict, and the judge's score where there is a judge, of every terminal."""
    ends = np.flatnonzero(tree.flags & END)
    owners = tree.root_of(ends) if len(ends) else ends
    texts = [tree.text(int(node)) for node in ends]
    if verify is not None:
        tree.verdict[ends] = [verify(tree.roots[int(r)], text) for r, text in zip(owners, texts, strict=True)]
    if judge is not None and len(ends):
        tree.judge[ends] = judge([tree.roots[int(root)].prompt for root in owners], texts)
