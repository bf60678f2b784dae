"""Verifier: is the answer right? The stored verdict where there is one, else the text against the reference."""

from __future__ import annotations

import numpy as np

from treegym.rewards.base import Asked, Term
from treegym.rewards.source import TreeSource

__all__ = ["Verifier"]


class Verifier(Term):
    """1.0 where the answer is right, 0.0 where it is wrong, at the end of an episode."""

    kind = "verifier"
    bounds = (0.0, 1.0)

    def values(self, source: TreeSource, asked: Asked) -> np.ndarray:
        nodes = asked.nodes
        verdict = np.asarray(source.verdict)[nodes].astype(np.float64)
        stored = ~np.isnan(verdict)
        roots = np.asarray(source.root_of(nodes))
        for i in np.nonzero(~stored)[0]:
            verdict[i] = source.text(int(nodes[i])).strip() == source.answers[int(roots[i])].strip()
        return verdict
