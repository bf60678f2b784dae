"""Baselines that look at one choice at a time: chance, the primary, a teacher, a vote, and draws by fitness.

Letters: B rows, K children, M teachers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.agents.baselines.base import Baseline
from treegym.agents.masking import greedy
from treegym.errors import ConfigError, suggest
from treegym.search.selectors import drawn, rank_probabilities, roulette_probabilities, tournament_probabilities

__all__ = ["GreedyPrior", "RandomAgent", "RankSelection", "Roulette", "StepVote", "Teacher", "Tournament"]


class RandomAgent(Baseline):
    """Chooses uniformly among the legal children."""

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        mask = self.mask(rows)
        return np.where(mask, self.rng.random(mask.shape), -1.0).argmax(1)


class GreedyPrior(Baseline):
    """Takes the child that the primary model finds likeliest."""

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        return greedy(self.columns(rows, ["prior"])[..., 0], self.mask(rows))


class Teacher(Baseline):
    """Takes the child that one teacher finds likeliest.

    Args:
        env: the environment.
        teacher: its name, or its number.
    """

    def __init__(self, env: Any, *, teacher: str | int = 0, seed: int | None = None, **kwargs: Any) -> None:
        self.teacher = teacher
        super().__init__(env, seed=seed, **kwargs)

    def _enter_world(self) -> None:
        names = [name.removeprefix("teacher:") for name in self.teachers()]
        if isinstance(self.teacher, int):
            if not 0 <= self.teacher < len(names):
                raise ConfigError(f"there is no teacher {self.teacher}; there are {len(names)}: {', '.join(names)}")
            self.teacher = names[self.teacher]
        if self.teacher not in names:
            raise ConfigError(f"there is no teacher {self.teacher!r}.{suggest(self.teacher, names)}")

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        return greedy(self.columns(rows, [f"teacher:{self.teacher}"])[..., 0], self.mask(rows))


class StepVote(Baseline):
    """Every teacher votes for its likeliest child; ties go to the higher mean log-probability."""

    def _enter_world(self) -> None:
        self.teachers()

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        mask = self.mask(rows)
        scores = self.columns(rows, self.teachers())  # [B, K, M]
        first = np.where(mask[..., None], scores, -np.inf).argmax(1)  # [B, M]
        votes = (first[:, None] == np.arange(mask.shape[1])[None, :, None]).sum(-1)  # [B, K]
        return greedy(votes + 1e-3 * scores.mean(-1), mask)


class Roulette(Baseline):
    """Draws a child with probability proportional to what the primary gives it."""

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        prior = np.exp(self.columns(rows, ["prior"])[..., 0].astype(np.float64))
        return drawn(roulette_probabilities(prior, among=self.mask(rows)), self.rng)


class Tournament(Baseline):
    """Takes the best, by the primary, of a few children drawn at random.

    Args:
        env: the environment.
        size: how many are drawn.
    """

    def __init__(self, env: Any, *, size: int = 3, seed: int | None = None, **kwargs: Any) -> None:
        if size < 1:
            raise ConfigError(f"a tournament needs at least one child, got size={size}")
        self.size = size
        super().__init__(env, seed=seed, **kwargs)

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        prior = self.columns(rows, ["prior"])[..., 0]
        return drawn(tournament_probabilities(prior, among=self.mask(rows), size=self.size), self.rng)


class RankSelection(Baseline):
    """Draws a child with probability falling linearly with its rank under the primary."""

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        prior = self.columns(rows, ["prior"])[..., 0]
        return drawn(rank_probabilities(prior, among=self.mask(rows), pressure=None), self.rng)
