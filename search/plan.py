"""A search by a method written in Python: what is set up for it, how it grows, and what it says in the end.

Letters: B roots, A actions, L moves made together.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

import numpy as np

from treegym.checks import whole
from treegym.search.answers import Trail
from treegym.search.checks import from_zero, positive
from treegym.search.output import root_ids_of
from treegym.search.paths import CheckedWorld, Tally, log_policy
from treegym.search.settings import seed_bits
from treegym.search.simulator import SearchResult, Simulator
from treegym.search.states import StateStore, count

__all__ = ["Grown", "Limits", "Plan"]


class Limits(TypedDict, total=False):
    """What can be set of every method that grows paths."""

    seed: int  # seeds all noise; 0 unless given
    root_ids: np.ndarray | None  # int [B], names of the roots' random streams; 0 .. B - 1 unless given
    discount: float  # 1.0 unless given
    model_calls: int | None  # calls of the simulator's `expand` at most, the roots' not counted
    seconds: float | None  # wall-clock time; a round under way is finished
    answers: int  # how many of the best paths to return with the result; none unless given


class Grown(NamedTuple):
    """What became of L moves."""

    numbers: np.ndarray  # [L] int64, where the new states are kept
    reward: np.ndarray  # [L] float64
    ended: np.ndarray  # [L] bool
    worth: np.ndarray  # [L] float64, what the evaluator says of the new states, 0 at an end
    log_prior: np.ndarray  # [L, A] float64, 0 at an end


class Plan:
    """One search of B roots; states are numbered as they come, the roots first."""

    def __init__(self, simulator: Simulator, states: Any, num_simulations: int, **limits: Any) -> None:
        """Judges the roots.

        Args:
            simulator: the world.
            states: the B roots.
            num_simulations: new states judged per root, at most.
            **limits: see `Limits`.
        """
        self.budget = positive("num_simulations", num_simulations)
        self.discount = from_zero("discount", limits.get("discount", 1.0), 1.0)
        self.world = CheckedWorld(simulator, model_calls=limits.get("model_calls"), seconds=limits.get("seconds"))
        self.given = self.world.roots(states)
        self.prior = log_policy(self.given)  # [B, A]
        self.size, self.actions = self.prior.shape
        ids = root_ids_of(limits.get("root_ids"), self.size).astype(np.uint64)  # generators take no negative numbers
        seed = seed_bits(limits.get("seed", 0)) % 2**64
        self.streams = [np.random.default_rng([seed, int(name)]) for name in ids]  # functions of (seed, root id) alone
        self.tally = Tally(self.size, self.actions)
        self._most = whole("answers", limits.get("answers", 0), low=0)
        self.trail = Trail(states, self.given.value) if self._most else None
        self._roots, self._used = states, self.size
        self._store: StateStore | None = None  # made when states come: some methods never keep any

    def room(self, root: int) -> int:
        """Returns how many states may still be judged for a root."""
        return self.budget - int(self.tally.evaluations[root])

    def states(self, numbers: np.ndarray) -> Any:
        """Returns the states kept under some numbers."""
        return self._kept().get(numbers)

    def _kept(self) -> StateStore:
        if self._store is None:
            self._store = StateStore(self._roots, self.size * (self.budget + 1))
            self._store.put(np.arange(count(self._roots)), self._roots)
        return self._store

    def grow(self, parents: np.ndarray, actions: np.ndarray) -> Grown:
        """Makes a move from each of L states and judges what it leads to; evaluations are the method's to count."""
        moved = self.world.step(self.states(parents), actions)
        numbers = np.arange(self._used, self._used + len(actions))
        self._used += len(actions)
        self._kept().put(numbers, moved.states)
        alive = np.flatnonzero(~moved.terminated)
        worth, log_prior = np.zeros(len(actions)), np.zeros((len(actions), self.actions))
        if len(alive):
            judged = self.world.expand(self.states(numbers[alive]))
            worth[alive], log_prior[alive] = judged.value, log_policy(judged)
        if self.trail is not None:
            self.trail.add(parents, actions, moved, worth)
        return Grown(numbers, moved.reward, moved.terminated, worth, log_prior)

    def drawn(self, root: int, log_prior: np.ndarray, most: int) -> list[int]:
        """Returns at most so many legal actions, drawn from a policy without repetition."""
        noisy = log_prior + self.streams[root].gumbel(size=self.actions)
        best = np.argsort(-noisy, kind="stable")[:most]
        return [int(action) for action in best[np.isfinite(log_prior[best])]]

    def result(self, policy: np.ndarray | None = None) -> SearchResult:
        """Plays the move with the best outcome; the policy is that move unless given."""
        answers = None if self.trail is None else self.trail.answers(self._most, self.discount)
        return self.tally.result(self.prior, policy, answers)
