"""A league: main agents, exploiters trained where the mains fail, and snapshots of before.

Agents do not play each other; they answer the same prompts, and on each whoever does better has won. After Vinyals et
al. 2019 (https://doi.org/10.1038/s41586-019-1724-z), with prompts for opponents' games:

- a main agent practises prompts on which others beat it, and of these others mostly whom it loses to (prioritised
  matching: an opponent j weighs (1 - w_j)^2, where w_j is the win rate against j);
- an exploiter begins as the best main and is trained on the prompts that most mains fail at; one that then wins
  against that main on validation prompts takes the place of the weakest main;
- a main that wins against its last snapshot leaves another, which stays as an opponent.

Letters: A agents, P training prompts, V validation prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from treegym.checks import number, whole

__all__ = ["League", "Member", "Rules", "practice", "win_rate"]

FLOOR = 0.1  # of the weight of prompts that nobody wins against a main: what is known is not forgotten


@dataclass(frozen=True)
class Rules:
    """How a league is played."""

    mains: int = 3
    exploiters: int = 1
    generations: int = 4
    steps: int = 20_000  # of one agent in one generation
    share: float = 0.5  # of the training prompts that are practised in a generation
    promotion: float = 0.55  # win rate from which on a newcomer has won
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("mains", 1), ("exploiters", 0), ("generations", 1), ("steps", 1), ("seed", 0)):
            whole(name, getattr(self, name), low=low)
        number("share", self.share, low=0.01, high=1.0)
        number("promotion", self.promotion, low=0.5, high=1.0)

    @property
    def budget(self) -> int:
        """Environment steps of all agents in all generations."""
        return (self.mains + self.exploiters) * self.generations * self.steps


@dataclass
class Member:
    """An agent of the league: its file, and how it does on each prompt."""

    name: str
    file: str = ""  # "" before it was trained
    train: list[float] = field(default_factory=list)  # [P] score of each prompt
    validation: list[float] = field(default_factory=list)  # [V]


class League:
    """Who is in the league; what is to be trained next, and what follows from how that went."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.generation = 0
        self.steps = 0  # environment steps so far
        self.mains = [Member(f"main-{number}") for number in range(rules.mains)]
        self.exploiters: list[Member] = []
        self.snapshots: list[Member] = []
        self.log: list[str] = []

    def jobs(self, prompts: int) -> list[dict[str, Any]]:
        """Returns what is to be trained in this generation: whom it begins as, and the places of its prompts."""
        rules, jobs = self.rules, []
        for place, main in enumerate(self.mains):
            rng = np.random.default_rng([rules.seed, self.generation, place])
            weights = np.ones(prompts) if not main.train else practice(main, self._others(main))
            jobs.append(self._job(main.name, main.file, weights, rng, seed=place))
        if not self.generation:
            weights = np.ones(prompts)  # nobody has failed yet
        else:
            failed = 1.0 - np.mean([main.train for main in self.mains], axis=0)
            weights = failed + FLOOR * (failed.max() <= 0)
        for place in range(rules.mains, rules.mains + rules.exploiters):
            rng = np.random.default_rng([rules.seed, self.generation, place])
            file = self.best().file if self.generation else ""
            jobs.append(self._job(f"exploiter-{place - rules.mains}", file, weights, rng, seed=place))
        return jobs

    def _job(self, name: str, file: str, weights: np.ndarray, rng: np.random.Generator, *, seed: int) -> dict[str, Any]:
        known = np.flatnonzero(weights > 0)
        count = min(len(known), max(1, round(self.rules.share * len(weights))))
        chances = weights[known] / weights[known].sum()
        chosen = np.sort(rng.choice(known, size=count, replace=False, p=chances))
        return {"name": name, "file": file, "prompts": chosen.tolist(), "seed": self.rules.seed * 1000 + seed}

    def _others(self, main: Member) -> list[Member]:
        return [one for one in (*self.mains, *self.exploiters, *self.snapshots) if one is not main]

    def take(self, trained: Sequence[Member], steps: int) -> None:
        """Ends a generation: trained agents take their places, exploiters and snapshots are promoted by win rate."""
        rules = self.rules
        self.steps += steps
        self.mains, self.exploiters = list(trained[: rules.mains]), list(trained[rules.mains :])
        for exploiter in self.exploiters if self.generation else []:
            best, weakest = self.best(), min(self.mains, key=lambda one: float(np.mean(one.validation)))
            rate = win_rate(exploiter.validation, best.validation)
            if rate >= rules.promotion:
                place = self.mains.index(weakest)
                self.mains[place] = Member(weakest.name, exploiter.file, exploiter.train, exploiter.validation)
                self.log.append(f"generation {self.generation}: {exploiter.name} ({rate:.2f}) became {weakest.name}")
        for main in self.mains:
            last = next((one for one in reversed(self.snapshots) if one.name.startswith(f"{main.name}@")), None)
            rate = 1.0 if last is None else win_rate(main.validation, last.validation)
            if rate >= rules.promotion:
                kept = Member(f"{main.name}@{self.generation}", main.file, main.train, main.validation)
                self.snapshots.append(kept)
                self.log.append(f"generation {self.generation}: {kept.name} was kept ({rate:.2f})")
        self.generation += 1

    def best(self) -> Member:
        """Returns who does best on validation prompts, of mains and snapshots: a main may have got worse."""
        return max([*self.mains, *self.snapshots], key=lambda one: float(np.mean(one.validation)))

    def members(self) -> list[Member]:
        """Returns all, mains first."""
        return [*self.mains, *self.exploiters, *self.snapshots]

    def as_json(self) -> dict[str, Any]:
        """Returns everything, for `of`."""
        people = {name: [asdict(one) for one in getattr(self, name)] for name in ("mains", "exploiters", "snapshots")}
        return {"rules": asdict(self.rules), "generation": self.generation, "steps": self.steps, "log": self.log,
                **people}  # fmt: skip

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> League:
        """Returns the league that `as_json` told of."""
        league = cls(Rules(**told["rules"]))
        league.generation, league.steps, league.log = told["generation"], told["steps"], list(told["log"])
        for name in ("mains", "exploiters", "snapshots"):
            setattr(league, name, [Member(**one) for one in told[name]])
        return league


def win_rate(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns on which share of the prompts that tell them apart `one` does better; a half where none does."""
    difference = np.asarray(one, float) - np.asarray(other, float)
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    return won / (won + lost) if won + lost else 0.5


def practice(main: Member, others: Sequence[Member]) -> np.ndarray:
    """Returns how much each training prompt is worth to a main agent ``[P]``: where those who beat it beat it."""
    own = np.asarray(main.train, float)
    weights = np.full(len(own), FLOOR)
    for other in others:
        if other.train:
            hard = (1.0 - win_rate(main.train, other.train)) ** 2
            weights += hard * (np.asarray(other.train, float) > own)
    return weights
