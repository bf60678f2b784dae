"""What the methods without visit statistics share: judging states in batches, counting evaluations, writing results."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.search.checks import FINITE, budget, expanded, first_beyond, stepped
from treegym.search.simulator import Answers, Evaluation, SearchResult, Simulator, Transition

__all__ = ["CheckedWorld", "Tally", "log_policy"]


class CheckedWorld:
    """A simulator whose answers are checked and whose calls and time are limited, for the methods written in Python."""

    def __init__(self, simulator: Simulator, *, model_calls: int | None = None, seconds: float | None = None) -> None:
        """Starts the clock; judging the roots is not counted as a call."""
        self.simulator = simulator
        calls, seconds = budget("model_calls", model_calls, whole=True), budget("seconds", seconds, whole=False)
        self._calls_left = math.inf if calls is None else calls
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def spent(self) -> bool:
        """Whether the budget in calls or seconds is spent."""
        return self._calls_left <= 0 or time.monotonic() >= self._end

    def roots(self, states: Any) -> Evaluation:
        """Judges the roots."""
        return self._judged(states, "at the roots")

    def expand(self, states: Any) -> Evaluation:
        """Judges states below the roots; costs a call."""
        self._calls_left -= 1
        return self._judged(states, "below the roots")

    def _judged(self, states: Any, what: str) -> Evaluation:
        given = expanded(self.simulator, states, what)
        stuck = np.flatnonzero(~given.legal.any(1))
        if len(stuck):
            raise ConfigError(f"{what}: state {int(stuck[0])} has no legal action")
        return given

    def step(self, states: Any, actions: np.ndarray) -> Transition:
        """Steps states; rewards float64 and finite, `terminated` bool."""
        moved = stepped(self.simulator, states, actions)
        reward, ended = np.asarray(moved.reward, np.float64), np.asarray(moved.terminated, np.bool_)
        for name, array in (("reward", reward), ("terminated", ended)):
            if array.shape != actions.shape:
                raise ConfigError(f"the simulator's {name} has shape {array.shape}; expected {actions.shape}")
        if (row := first_beyond(reward)) >= 0:
            raise ConfigError(f"the reward of step {row} is {reward[row]}; {FINITE}")
        return Transition(moved.states, reward, ended)


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

    def result(
        self, prior: np.ndarray, policy: np.ndarray | None = None, answers: Answers | None = None
    ) -> SearchResult:
        """Plays the move with the best outcome (ties: the likelier one); the policy is that move unless given.

        Args:
            prior: log-probabilities [B, A], -inf where illegal.
            policy: an improved policy [B, A].
            answers: the best paths, where they were asked for.
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
        return SearchResult(action, policy.astype(np.float32), self.visits, q, value, used, answers)
