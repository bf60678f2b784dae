"""CandidateSelector: which candidate to take next, by tournament, roulette, rank, or a learned policy.

A learned policy comes from outside (`policy`): this package knows no agents. It is asked with what is known of every
candidate and answers with a position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from treegym.checks import one_of, whole
from treegym.errors import ConfigError
from treegym.optimize.candidates import Candidate
from treegym.optimize.fitness import fitness, scores, weights_of
from treegym.optimize.measurement import Measurement
from treegym.search.selectors import choose

__all__ = ["CandidateSelector", "Fitness", "Policy"]

Policy = Callable[[Sequence[Candidate], Sequence[float]], int]  # candidates and fitness -> position of the choice
_METHODS = ("tournament", "roulette", "rank", "rl")


class Fitness(float):
    """A number that knows where it is from."""

    measured: bool  # of a measurement; False: of what was published about the strategies, a prior

    def __new__(cls, value: float, *, measured: bool) -> Fitness:
        made = super().__new__(cls, value)
        made.measured = measured
        return made


class CandidateSelector:
    """Selects among candidates by fitness.

    Args:
        method: tournament, roulette, rank or rl.
        tournament_size: contestants of a tournament.
        weights: objective weights of the fitness.
        seed: of the draws.
        policy: the learned selection of "rl"; without one, "rl" raises.
    """

    def __init__(
        self,
        *,
        method: str = "tournament",
        tournament_size: int = 3,
        weights: dict[str, float] | None = None,
        seed: int = 0,
        policy: Policy | None = None,
    ) -> None:
        self.method = one_of("method", method, _METHODS)
        self.tournament_size = whole("tournament_size", tournament_size, low=1)
        self.weights = weights_of(weights)
        self.policy = policy
        self.finished = False  # whether the learned policy would rather commit to what is measured
        self.rng = np.random.default_rng(seed)

    def evaluate_candidate_fitness(self, candidate: Measurement | Sequence[float] | Candidate) -> Fitness:
        """Returns the fitness of a measurement, or of (speed, memory, accuracy), or of what a candidate promises.

        `Fitness.measured` says whether it rests on a measurement or on published gains.
        """
        if isinstance(candidate, Candidate):
            values: Any = candidate.nominal
        elif isinstance(candidate, Measurement):
            values = (candidate.speed.value, candidate.memory.value, candidate.accuracy.value)
        else:
            values = tuple(candidate)
        if len(values) != 3:
            raise ConfigError(f"{len(values)} metrics came; expected speed, memory and accuracy")
        return Fitness(float(fitness(scores(*values), self.weights)), measured=not isinstance(candidate, Candidate))

    def select_candidate(self, candidates: Sequence[Candidate], fitness: Sequence[float]) -> Candidate:
        """Returns one candidate, by the method chosen."""
        select = {
            "tournament": self.tournament_selection,
            "roulette": self.roulette_selection,
            "rank": self.rank_selection,
            "rl": self.rl_enhanced_selection,
        }[self.method]
        return select(candidates, fitness)

    def tournament_selection(self, candidates: Sequence[Candidate], fitness: Sequence[float]) -> Candidate:
        """Draws `tournament_size` distinct candidates and returns the fittest of them."""
        return self._drawn(candidates, _checked(candidates, fitness), "tournament", size=self.tournament_size)

    def roulette_selection(self, candidates: Sequence[Candidate], fitness: Sequence[float]) -> Candidate:
        """Draws a candidate with a chance proportional to its fitness above the worst (plus a tenth of the spread)."""
        values = _checked(candidates, fitness)
        return self._drawn(candidates, values - values.min() + 0.1 * float(np.ptp(values)), "roulette")

    def rank_selection(self, candidates: Sequence[Candidate], fitness: Sequence[float]) -> Candidate:
        """Draws a candidate with a chance proportional to its rank: n for the fittest, 1 for the least fit.

        Ties share their mean rank.
        """
        return self._drawn(candidates, _checked(candidates, fitness), "rank", pressure=None)

    def _drawn(
        self, candidates: Sequence[Candidate], values: np.ndarray, selector: str, **settings: float | None
    ) -> Candidate:
        [chosen] = choose(values, count=1, seed=self.rng, selector=selector, **settings)
        return candidates[int(chosen)]

    def rl_enhanced_selection(self, candidates: Sequence[Candidate], fitness: Sequence[float]) -> Candidate:
        """Asks the learned policy."""
        _checked(candidates, fitness)
        if self.policy is None:
            raise ConfigError(
                "rl selection needs a learned policy: make the core with treegym.optimization, which trains one, "
                "or pass policy=..."
            )
        chosen = self.policy(candidates, fitness)
        self.finished = bool(getattr(self.policy, "finished", False))
        if not 0 <= chosen < len(candidates):
            raise ConfigError(f"the policy chose candidate {chosen} of {len(candidates)}")
        return candidates[chosen]


def _checked(candidates: Sequence[Candidate], fitness: Sequence[float]) -> np.ndarray:
    values = np.asarray(fitness, float)
    if not len(candidates) or values.shape != (len(candidates),):
        raise ConfigError(f"{len(candidates)} candidates came with {values.size} fitness values; one each is needed")
    if not np.isfinite(values).all():
        raise ConfigError("a candidate's fitness is not finite")
    return values
