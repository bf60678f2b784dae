"""What the methods without visit statistics share: judging states in batches, counting evaluations, writing results."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.search.base import Evaluation, SearchResult, Simulator
from treegym.search.checks import check_evaluation
from treegym.search.output import root_ids_of
from treegym.search.states import count

__all__ = ["Tally", "log_policy", "positive", "root_evaluation", "root_streams"]


def root_evaluation(simulator: Simulator, states: Any) -> Evaluation:
    """Judges the roots and checks what comes back; each must have a legal action."""
    size = count(states)
    given = check_evaluation(simulator.expand(states), size, int(simulator.num_actions), "at the roots")
    stuck = np.flatnonzero(~given.legal.any(1))
    if len(stuck):
        raise ConfigError(f"root {int(stuck[0])} has no legal action")
    return given


def log_policy(given: Evaluation) -> np.ndarray:
    """Returns log-probabilities over legal actions, float64 [B, A], -inf elsewhere; NaN priors are an error."""
    logits = np.where(given.legal, given.prior_logits.astype(np.float64), -np.inf)
    if np.isnan(logits).any() or np.isposinf(logits).any():
        row = int(np.flatnonzero(np.isnan(logits).any(1) | np.isposinf(logits).any(1))[0])
        raise ConfigError(f"state {row} has a prior logit that is NaN or +inf")
    high = logits.max(1, keepdims=True)
    if np.isneginf(high).any():
        row = int(np.flatnonzero(np.isneginf(high))[0])
        raise ConfigError(f"state {row} has no legal action, or prior logits of -inf for all of them")
    shifted = logits - high
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def root_streams(seed: int, root_ids: Any, size: int) -> list[np.random.Generator]:
    """Returns one generator a root, a function of (seed, root id) alone."""
    return [np.random.default_rng([int(seed), int(name)]) for name in root_ids_of(root_ids, size)]


def positive(name: str, number: int) -> int:
    """Returns a whole number from 1, or raises `ConfigError`."""
    if not isinstance(number, (int, np.integer)) or number < 1:
        raise ConfigError(f"{name} is {number!r}; it must be a whole number from 1")
    return int(number)


class Tally:
    """Collects what was found through each first move."""

    def __init__(self, size: int, actions: int) -> None:
        self.visits = np.zeros((size, actions), np.int32)  # [B, A]
        self.best = np.full((size, actions), -np.inf)  # [B, A] best return found through the move
        self.evaluations = np.zeros(size, np.int64)  # [B]

    def add(self, root: int, action: int, value: float) -> None:
        """Counts one outcome."""
        self.visits[root, action] += 1
        self.best[root, action] = max(self.best[root, action], value)

    def result(self, prior: np.ndarray, policy: np.ndarray | None = None) -> SearchResult:
        """Plays the move with the best outcome (ties: the likelier one); the policy is that move unless given.

        Args:
            prior: log-probabilities [B, A], -inf where illegal.
            policy: an improved policy [B, A].
        """
        found = np.isfinite(self.best).any(1)
        score = np.where(found[:, None], self.best, prior)
        top = score == score.max(1, keepdims=True)
        action = np.where(top, prior, -np.inf).argmax(1)
        # where equally good moves have no prior at all, argmax would fall on an illegal one
        action = np.where(top[np.arange(len(action)), action], action, top.argmax(1)).astype(np.int32)
        if policy is None:
            policy = np.zeros(self.visits.shape)
            policy[np.arange(len(action)), action] = 1.0
        q = np.where(self.visits > 0, self.best, np.nan).astype(np.float32)
        value = np.where(found, self.best.max(1), 0.0).astype(np.float32)
        used = int(self.evaluations.max(initial=0))
        return SearchResult(action, policy.astype(np.float32), self.visits, q, value, used)
