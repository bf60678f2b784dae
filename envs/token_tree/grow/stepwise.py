"""The growth mode `step`: after one context at a time every voice proposes single next tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from treegym.envs.token_tree.grow.closing import PRIMARY, Candidate, accept
from treegym.envs.token_tree.grow.proposals import proposals_at
from treegym.envs.token_tree.grow.settings import GrowSettings, Voice
from treegym.envs.token_tree.grow.sprout import Sprout
from treegym.models.tree_scores import Branches, score_trees

__all__ = ["grow_stepwise"]


def grow_stepwise(
    sprouts: Sequence[Sprout],
    voices: Sequence[Voice],
    begins: Sequence[Sequence[tuple[int, ...]]],
    settings: GrowSettings,
) -> None:
    """Asks all voices at one context a prompt and wave, the likeliest for the primary first, until nothing fits."""
    asked: list[set[int]] = [set() for _ in sprouts]
    going = list(range(len(sprouts)))
    while going:
        chosen = _likeliest_contexts(sprouts, asked, going, voices[PRIMARY], begins[PRIMARY])
        chains = {plot: sprouts[plot].path(node) for plot, node in chosen.items()}
        scores = [
            score_trees(
                voice.model,
                [_chain(begins[number][plot], path) for plot, path in chains.items()],
                best=settings.best,
                worst=settings.worst,
            )
            for number, voice in enumerate(voices)
        ]
        candidates: list[Candidate] = []
        for place, (plot, node) in enumerate(chosen.items()):
            sprout = sprouts[plot]
            opinions = [(voice[place].best_ids[-1], voice[place].worst_ids[-1]) for voice in scores]
            proposals = proposals_at(opinions, sprout.children(node), depth=sprout.depth(node), settings=settings)
            sprout.credit(node, proposals)
            asked[plot].add(node)
            candidates += [Candidate(plot, node, *p) for p in proposals if p[0] not in sprout.children(node)]
        hopeful = {candidate.plot for candidate in candidates}
        grown = accept(sprouts, candidates, voices[PRIMARY], begins[PRIMARY], settings.max_nodes)
        going = [plot for plot in chosen if plot in grown or plot not in hopeful]


def _likeliest_contexts(
    sprouts: Sequence[Sprout],
    asked: Sequence[Collection[int]],
    going: Sequence[int],
    primary: Voice,
    begins: Sequence[tuple[int, ...]],
) -> dict[int, int]:
    """Returns, for each prompt that has one left, the unasked context that the primary finds likeliest."""
    trees = [sprouts[plot].branches(begins[plot]) for plot in going]
    chosen: dict[int, int] = {}
    for plot, tree, scores in zip(going, trees, score_trees(primary.model, trees, best=0), strict=True):
        total = np.zeros(tree.size + 1)  # [n + 1] log-probability of the path; the last entry is the prompt, node -1
        for node, parent in enumerate(tree.parents):
            total[node] = total[parent] + scores.logp[node]
        left = [node for node in sprouts[plot].contexts() if node not in asked[plot]]
        if left:
            chosen[plot] = max(left, key=lambda node: (total[node], -node))
    return chosen


def _chain(prompt: tuple[int, ...], path: Sequence[int]) -> Branches:
    return Branches(prompt, np.array(path, np.int32), np.arange(-1, len(path) - 1, dtype=np.int32))
