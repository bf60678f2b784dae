"""Where texts are forked: at surprising or entropic tokens, at boundaries of segments, or anywhere.

EPTree (TreeRL, https://arxiv.org/abs/2506.11902) forks every tree at its N most surprising tokens, round after round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treegym.envs.token_tree.grow.sample_settings import SampleSettings
from treegym.envs.token_tree.grow.settings import Voice
from treegym.models.tree_scores import Branches, score_trees

__all__ = ["fork_places"]

Texts = list[list[int]]  # a trunk and what was said anew from it: the nodes of each


def fork_places(
    sprouts: Sequence[Any],
    trunks: Sequence[Sequence[Texts]],
    starts: Sequence[tuple[int, ...]],
    voice: Voice,
    settings: SampleSettings,
    rng: np.random.Generator,
) -> list[tuple[int, int, int]]:
    """Returns prompt, trunk and node of every fork of a round: the node is the one after which a token is said anew.

    Of every trunk, with what was said anew from it before, the `forks` best places are taken. The first token of a text
    is none: saying it anew would be another sample of what the text itself is one of.
    """
    picked: list[tuple[int, int, int]] = []
    for p, (sprout, texts, start) in enumerate(zip(sprouts, trunks, starts, strict=True)):
        score = _scores(sprout, start, voice, settings, rng)
        for number, trunk in enumerate(texts):
            later = dict.fromkeys(node for text in trunk for node in text[1:])  # each place once
            places: dict[int, float] = {}
            for node in later:
                above = sprout.parents[node]
                if score[node] > -np.inf and sprout.room(above) > 0:
                    places[above] = max(places.get(above, -np.inf), float(score[node]))
            ranked = sorted(places, key=lambda node: (-places[node], node))
            picked += [(p, number, node) for node in (ranked[: settings.forks] if settings.forks else ranked)]
    return picked


def _scores(
    sprout: Any, start: tuple[int, ...], voice: Voice, settings: SampleSettings, rng: np.random.Generator
) -> np.ndarray:
    """Returns how much each node's token is worth saying anew ``[n] float64``; minus infinity: not at all."""
    tokens, parents = sprout.arrays()
    if settings.fork_at == "random":
        return rng.random(sprout.size)
    if settings.fork_at == "boundary":
        return np.where(
            _after_boundary(sprout, tokens, parents, voice, settings.segment), rng.random(sprout.size), -np.inf
        )
    entropic = settings.fork_at == "entropy"
    best = voice.model.tokenizer.vocab_size if entropic else 0
    [scores] = score_trees(voice.model, [Branches(start, tokens, parents)], best=best)
    if not entropic:
        return -scores.logp.astype(np.float64)
    logp = np.where(scores.best_ids >= 0, scores.best_logp, -np.inf).astype(np.float64)
    entropy = -(np.exp(logp) * np.where(np.isfinite(logp), logp, 0.0)).sum(axis=1)
    return entropy[parents + 1]


def _after_boundary(sprout: Any, tokens: np.ndarray, parents: np.ndarray, voice: Voice, segment: int) -> np.ndarray:
    """Returns which nodes begin a new segment ``[n] bool``."""
    if segment:
        return (np.array(sprout.depths) - 1) % segment == 0
    pieces = voice.model.tokenizer.pieces()
    closes = np.array([piece.endswith(b"\n") or piece.rstrip().endswith((b".", b"!", b"?")) for piece in pieces])
    return np.where(parents >= 0, closes[tokens[np.maximum(parents, 0)]], False)
