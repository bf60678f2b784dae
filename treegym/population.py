"""Population-based training in step: members train side by side, the worst go on from the best with changed settings.

After Jaderberg et al. 2017 (https://arxiv.org/abs/1711.09846). All members are judged at the same points, so who copies
whom follows from seed and scores alone: the search is the same wherever, and however often, it is done. Each member's
life is a list of segments (settings, steps, and from whom it went on), which `lineage` follows back to the beginning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from treegym.integrations.optuna import SPACES, Choice, Range, suggest_settings

__all__ = ["Life", "Population", "changed", "drawn"]

QUARTER = 0.25  # the share of members that copy, and of those that are copied; also how often a setting is drawn anew
FACTORS = (0.8, 1.2)


@dataclass
class Life:
    """A member: what it was made with, what it trained with, how it does."""

    seed: int  # it was made with
    segments: list[dict[str, Any]] = field(default_factory=list)  # settings of each interval, the next one's last
    score: float = math.nan


class Population:
    """Members, and what becomes of them from interval to interval."""

    def __init__(self, agent: str, size: int, *, seed: int) -> None:
        self.agent, self.seed = agent, seed
        self.interval = 0
        self.steps = 0
        self.lives = [
            Life(seed * 1000 + place, [drawn(agent, np.random.default_rng([seed, place]))]) for place in range(size)
        ]
        self.from_whom = list(range(size))  # whose checkpoint each goes on from

    def take(self, scores: list[float], steps: int, *, last: bool) -> None:
        """Ends an interval: notes how members did and, unless it was the last one, lets the worst copy the best."""
        self.steps += steps
        self.interval += 1
        for life, score in zip(self.lives, scores, strict=True):
            life.score = score
        if last:
            return
        size = len(self.lives)
        rng = np.random.default_rng([self.seed, size, self.interval])
        order = sorted(range(size), key=lambda place: (-_known(scores[place]), place))
        count = min(max(1, int(QUARTER * size)), size // 2)
        self.from_whom = list(range(size))
        for place in order[size - count :]:
            self.from_whom[place] = int(rng.choice(order[:count]))
        before = self.lives
        self.lives = []
        for place, source in enumerate(self.from_whom):
            own = before[source]
            settings = own.segments[-1]
            settings = settings if source == place else changed(self.agent, settings, rng)
            self.lives.append(Life(own.seed, [*own.segments, settings], own.score))

    def best(self) -> int:
        """Returns the place of who does best."""
        return max(range(len(self.lives)), key=lambda place: (_known(self.lives[place].score), -place))

    def as_json(self) -> dict[str, Any]:
        """Returns everything, for `of`."""
        return {**vars(self), "lives": [asdict(life) for life in self.lives]}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Population:
        """Returns the population that `as_json` told of."""
        population = cls(told["agent"], len(told["lives"]), seed=told["seed"])
        population.interval, population.steps = told["interval"], told["steps"]
        population.from_whom = list(told["from_whom"])
        population.lives = [Life(**life) for life in told["lives"]]
        return population


def _known(score: float) -> float:
    return score if math.isfinite(score) else -math.inf


class _Draws:
    """What `suggest_settings` asks, answered by a generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        share = float(self._rng.random())
        return low * (high / low) ** share if log else low + (high - low) * share

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self._rng.integers(low, high + 1))

    def suggest_categorical(self, name: str, values: list[Any]) -> Any:
        return values[int(self._rng.integers(len(values)))]


def drawn(agent: str, rng: np.random.Generator) -> dict[str, Any]:
    """Returns settings drawn from the agent's space."""
    return suggest_settings(_Draws(rng), agent)


def changed(agent: str, settings: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Returns settings near those given: numbers times 0.8 or 1.2 within their range, choices a step on; some anew."""
    anew = drawn(agent, rng)
    found: dict[str, Any] = {}
    for name, part in SPACES[agent].items():
        if rng.random() < QUARTER:
            found[name] = anew[name]
        elif isinstance(part, Range):
            value = settings[name] * FACTORS[int(rng.integers(2))]
            value = round(value) if part.whole else value
            found[name] = type(anew[name])(min(max(value, part.low), part.high))
        else:
            assert isinstance(part, Choice)
            place = part.values.index(settings[name]) + (-1, 1)[int(rng.integers(2))]
            found[name] = part.values[min(max(place, 0), len(part.values) - 1)]
    return found
