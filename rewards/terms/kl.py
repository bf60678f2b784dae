"""KL to a frozen reference: a per-token estimate as a term, and the estimators for agents."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.rewards.base import Request, Term
from treegym.rewards.terms.likelihood import logprob_column
from treegym.tree.token_tree import TokenTree

__all__ = ["KL", "kl_estimate"]


def kl_estimate(logp: np.ndarray, reference: np.ndarray, *, estimator: str = "k1") -> np.ndarray:
    """Returns a per-token estimate of KL(policy || reference) from one sample of the policy.

    With d = log p - log q:  k1 = d (unbiased),  k2 = d^2 / 2,  k3 = exp(-d) - 1 + d (unbiased, never negative).
    See http://joschu.net/blog/kl-approx.html.
    """
    difference = np.asarray(logp, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference**2
    if estimator == "k3":
        return np.exp(-difference) - 1.0 + difference
    raise ConfigError(f"estimator is {estimator!r}; expected 'k1', 'k2' or 'k3'")


class KL(Term):
    """How far the primary, when the tree was grown, is from a teacher, token by token. Use a negative weight.

    The policy being trained changes while a tree does not: agents add the KL of the *policy* with `kl_estimate`.

    Args:
        reference: ``"teacher:NAME"``, the frozen model.
        estimator: ``k1``, ``k2`` or ``k3``.
        limit: largest magnitude of one step; a reference without an opinion counts as the limit.
    """

    kind = "kl"
    deployable = True
    scope = "step"

    def __init__(self, *, reference: str, estimator: str = "k1", limit: float = 20.0, **common: Any) -> None:
        super().__init__(**common)
        kl_estimate(np.zeros(1), np.zeros(1), estimator=estimator)
        self.reference, self.estimator, self.limit = reference, estimator, float(limit)

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        reference = logprob_column(source, self.reference, self.name)[asked.nodes].astype(np.float64)
        estimate = kl_estimate(np.asarray(source.prior)[asked.nodes], reference, estimator=self.estimator)
        return np.where(np.isnan(estimate), self.limit, np.clip(estimate, -self.limit, self.limit))
