"""A live tree: nodes are grown where episodes come to the edge, all of a batch in one call per model.

Letters: P nodes to expand, C their new children in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from treegym.envs.token_tree.grow.basis import ContextBasis, fit_basis
from treegym.envs.token_tree.grow.closing import PRIMARY
from treegym.envs.token_tree.grow.columns import (
    LOWEST,
    checked_prior,
    cosine,
    ending_tokens,
    own_choices,
    vocabulary,
)
from treegym.envs.token_tree.grow.proposals import proposals_at
from treegym.envs.token_tree.grow.settings import GrowSettings, Judge, Verifier
from treegym.envs.token_tree.grow.states import ContextStates
from treegym.envs.token_tree.grow.voices import check_prompts, make_voices
from treegym.models.base import Generates, LanguageModel
from treegym.models.embeddings import Embedder
from treegym.models.tree_scores import Branches, score_trees
from treegym.tree.flags import EOS
from treegym.tree.token_tree import Root, TokenTree

__all__ = ["LiveGrower"]


class LiveGrower:
    """Fits the environments' `grower`: expands nodes by what primary and teachers propose after them."""

    def __init__(
        self,
        primary: LanguageModel,
        teachers: Sequence[Generates] = (),
        *,
        settings: GrowSettings | None = None,
        verify: Verifier | None = None,
        judge: Judge | None = None,
        embedder: Embedder | None = None,
        chat: bool = True,
    ) -> None:
        """Takes what `grow` takes; of the settings right, wrong, max_children and max_tokens count."""
        self.voices = make_voices(primary, teachers, chat=chat)
        self.settings = settings or GrowSettings()
        self._verify, self._judge = verify, judge
        self._states = ContextStates(self.voices[PRIMARY], embedder)
        self._basis: ContextBasis | None = None

    def plant(self, prompts: Sequence[Root], *, basis_prompts: int = 256) -> TokenTree:
        """Returns a live tree of bare prompts. The context components are fitted on the first of them."""
        check_prompts(self.voices, prompts, max_tokens=self.settings.max_tokens)
        primary = self.voices[PRIMARY]
        texts = [root.prompt for root in prompts]
        basis = fit_basis(self._states, texts[:basis_prompts], max_tokens=self.settings.max_tokens)
        self._basis = basis
        tree = TokenTree.empty(
            tokens=vocabulary(primary.model),
            eos_id=primary.model.tokenizer.eos_id,
            teachers=[voice.name for voice in self.voices[1:]],
            context=True,
            header={"growth": self.settings.to_dict(), "context_basis": basis.to_header()},
        )
        begins = [primary.begin(text) for text in texts]
        contexts = basis.prompts.encode(self._states.of_prompts(begins))
        for root, begin, context in zip(prompts, begins, contexts, strict=True):
            tree.add_root(replace(root, tokens=begin), context=context)
        return tree

    def grow(self, tree: TokenTree, nodes: np.ndarray) -> None:
        """Expands distinct, unexpanded nodes that are not ends."""
        owners = tree.root_of(nodes)
        paths = [tree.path(int(node)).tolist() for node in nodes]
        prompts = [tree.roots[int(root)].prompt for root in owners]
        children = self._proposed(tree, nodes, prompts, paths)
        counts = np.array([len(tokens) for tokens, _ in children])
        tokens = np.concatenate([tokens for tokens, _ in children])  # [C]
        leaves = [tokens for tokens, _ in children]
        added = tree.add_children(
            nodes,
            counts,
            tokens,
            proposers=np.concatenate([bits for _, bits in children]),
            flags=ending_tokens(self.voices[PRIMARY].model)[tokens],
        )
        self._fill_primary(tree, added, prompts, paths, leaves)
        for column, voice in enumerate(self.voices[1:]):
            branches = _fans([voice.begin(prompt) for prompt in prompts], paths, leaves)
            logp = np.concatenate([scores.logp for scores in score_trees(voice.model, branches, best=0)])
            tree.teacher_logp[added, column] = np.clip(logp, LOWEST, 0.0)
        self._fill_ends(tree, added[(tree.flags[added] & EOS) != 0])

    def _proposed(
        self, tree: TokenTree, nodes: np.ndarray, prompts: Sequence[str], paths: Sequence[list[int]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns, for each node, its children's tokens and proposers' bits; at the depth limit an end alone."""
        nothing = [np.zeros(0, np.int32)] * len(paths)
        scores = [
            score_trees(
                voice.model,
                _fans([voice.begin(prompt) for prompt in prompts], paths, nothing),
                best=self.settings.best,
                worst=self.settings.worst,
            )
            for voice in self.voices
        ]
        found = []
        for place, node in enumerate(nodes):
            opinions = [(voice[place].best_ids[0], voice[place].worst_ids[0]) for voice in scores]
            depth = int(tree.depth[node])
            proposals = proposals_at(opinions, (), depth=depth, settings=self.settings)
            if depth + 1 >= self.settings.max_tokens or not proposals:
                proposals = [(tree.eos_id, 1 << PRIMARY)]
            found.append((np.array([t for t, _ in proposals]), np.array([b for _, b in proposals], np.uint32)))
        return found

    def _fill_primary(
        self,
        tree: TokenTree,
        added: np.ndarray,
        prompts: Sequence[str],
        paths: Sequence[list[int]],
        leaves: Sequence[np.ndarray],
    ) -> None:
        branches = _fans([self.voices[PRIMARY].begin(prompt) for prompt in prompts], paths, leaves)
        seen = self._states.described(branches)
        choices, vectors = own_choices(self._states, seen), seen.vectors
        logp = np.concatenate([score.logp for score in seen.scores])
        tree.prior[added] = checked_prior(logp, self.voices[PRIMARY].name)
        similar = [cosine(v[1:], np.broadcast_to(c[0], v[1:].shape)) for v, c in zip(vectors, choices, strict=True)]
        tree.similarity[added] = np.concatenate(similar)
        basis = self._basis
        if basis is None and "context_basis" in tree.header:
            basis = self._basis = ContextBasis.from_header(tree.header["context_basis"])
        if basis is not None and tree.has("context"):
            tree.context[added] = basis.contexts.encode(np.concatenate([vector[1:] for vector in vectors]))

    def _fill_ends(self, tree: TokenTree, ends: np.ndarray) -> None:
        if not len(ends):
            return
        roots = [tree.roots[int(root)] for root in tree.root_of(ends)]
        texts = [tree.text(int(node)) for node in ends]
        if self._verify is not None:
            tree.verdict[ends] = [self._verify(root, text) for root, text in zip(roots, texts, strict=True)]
        if self._judge is not None:
            tree.judge[ends] = self._judge([root.prompt for root in roots], texts)


def _fans(
    begins: Sequence[tuple[int, ...]], paths: Sequence[list[int]], leaves: Sequence[np.ndarray]
) -> list[Branches]:
    """Returns contexts with their children below them."""
    return [
        Branches((*begin, *path), tokens.astype(np.int32), np.full(len(tokens), -1, np.int32))
        for begin, path, tokens in zip(begins, paths, leaves, strict=True)
    ]
