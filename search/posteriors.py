"""What the scores seen so far say about the next one: the two models of AB-MCTS (https://arxiv.org/abs/2503.04412)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from treegym.checks import number
from treegym.errors import ConfigError

__all__ = ["Mixed", "Prior", "Scores", "mixed_draws"]


class Prior(NamedTuple):
    """Normal-inverse-chi-squared: what one unseen mean and variance are taken to be."""

    mean: float = 0.0
    kappa: float = 1.0  # how many scores the mean is worth
    nu: float = 1.0  # how many scores the variance is worth
    tau2: float = 0.1  # the variance

    def checked(self) -> Prior:
        """Returns the prior, or raises `ConfigError` naming the number that is out of range."""
        number("prior.mean", self.mean)
        for name in ("kappa", "nu", "tau2"):
            if number(f"prior.{name}", getattr(self, name)) <= 0:
                raise ConfigError(f"prior.{name} is {getattr(self, name)!r}; it must be a positive number")
        return self


class Scores:
    """Scores seen below one choice, and the posterior of their mean."""

    def __init__(self, prior: Prior = Prior()) -> None:  # noqa: B008 - it cannot be changed
        self.prior = prior
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, score: float) -> None:
        """Takes one score in (Welford's update)."""
        self.count += 1
        change = score - self.mean
        self.mean += change / self.count
        self.squares += change * (score - self.mean)

    def posterior(self) -> tuple[float, float, float, float]:
        """Returns mean, kappa, nu and tau2 of the normal-inverse-chi-squared posterior."""
        prior = self.prior
        kappa, nu = prior.kappa + self.count, prior.nu + self.count
        mean = (prior.kappa * prior.mean + self.count * self.mean) / kappa
        apart = self.count * prior.kappa / kappa * (self.mean - prior.mean) ** 2
        return mean, kappa, nu, (prior.nu * prior.tau2 + self.squares + apart) / nu

    def draw(self, rng: np.random.Generator) -> float:
        """Draws a mean from the posterior."""
        mean, kappa, nu, tau2 = self.posterior()
        variance = nu * tau2 / rng.chisquare(nu)
        return float(rng.normal(mean, np.sqrt(variance / kappa)))


class Mixed(NamedTuple):
    """The mixed model: score = alpha_j + noise, alpha_j ~ N(mu, sigma_alpha^2), noise ~ N(0, sigma_y^2).

    mu ~ N(mean, spread_mean^2); sigma_alpha and sigma_y are half-normal of these scales.
    """

    mean: float = 0.5
    spread_mean: float = 0.2
    spread_groups: float = 0.2
    spread_scores: float = 0.3

    def checked(self) -> Mixed:
        """Returns the model, or raises `ConfigError` naming the number that is out of range."""
        number("prior.mean", self.mean)
        for name in ("spread_mean", "spread_groups", "spread_scores"):
            if number(f"prior.{name}", getattr(self, name)) <= 0:
                raise ConfigError(f"prior.{name} is {getattr(self, name)!r}; it must be a positive number")
        return self


_CELLS = np.linspace(0.0, 1.0, 33)[:-1] + 1.0 / 64
_RATIO = 4.0 / 2e-3  # of the largest to the smallest spread looked at


def _grid(scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns spreads from 0.002 to 4 scales, evenly in their logarithm, and log weights of their cells."""
    spread = scale * 2e-3 * _RATIO**_CELLS
    return spread, np.log(spread) - 0.5 * (spread / scale) ** 2


def mixed_draws(groups: Sequence[Scores], model: Mixed, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draws one more score of every group, float64 [J], and one of a group not seen yet, from the posterior.

    With both spreads given, all is normal and mu integrates out; so the spreads are drawn from their exact posterior on
    a grid, then mu, then alpha_j, then the scores. No chain has to run in first. With v_j = sigma_alpha^2 +
    sigma_y^2 / n_j and m_j the mean of group j, N scores in J groups, S their squares about their groups' means:

        log p = -(N - J) ln sigma_y - S / (2 sigma_y^2) + sum ln N(m_j; mu, v_j), mu integrated over N(mean, spread^2)
    """
    count = np.array([group.count for group in groups], np.float64)
    mean = np.array([group.mean for group in groups], np.float64)
    inside = float(sum(group.squares for group in groups))
    between, weight_between = _grid(model.spread_groups)
    noise, weight_noise = _grid(model.spread_scores)
    a, s = between[:, None, None], noise[None, :, None]
    tight = 1.0 / (a * a + s * s / count)  # [a, s, J], 1 / v_j
    base = 1.0 / model.spread_mean**2
    total = base + tight.sum(-1)
    centre = (base * model.mean + (tight * mean).sum(-1)) / total
    log = 0.5 * np.log(tight).sum(-1) - 0.5 * np.log(total)
    log -= 0.5 * ((tight * mean * mean).sum(-1) - centre * centre * total)
    log -= (count.sum() - len(count)) * np.log(noise) + inside / (2.0 * noise * noise)
    log += weight_between[:, None] + weight_noise
    mass = np.exp(log - log.max()).reshape(-1).cumsum()
    i, j = divmod(int(np.searchsorted(mass, rng.random() * mass[-1])), len(noise))
    spread, sigma = float(between[i]), float(noise[j])
    mu = rng.normal(centre[i, j], total[i, j] ** -0.5)
    sure = count / sigma**2 + 1.0 / spread**2
    alpha = rng.normal((count * mean / sigma**2 + mu / spread**2) / sure, sure**-0.5)
    return rng.normal(alpha, sigma), float(rng.normal(rng.normal(mu, spread), sigma))
