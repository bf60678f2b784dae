"""What can be set about a tree search, checked in one place and turned into what the kernels read."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from treegym.checks import flag, number, one_of, whole
from treegym.errors import ConfigError, suggest
from treegym.search.kernels import codes
from treegym.search.kernels.numeric import LARGEST
from treegym.search.kernels.walk import Settings

__all__ = [
    "TREE_RULES",
    "Options",
    "halving_phases",
    "halving_table",
    "is_plain",
    "kernel_settings",
    "make_options",
    "seed_bits",
]

# name -> (selection rule, backup, relative entropy to the prior)
TREE_RULES: dict[str, tuple[int, int, bool]] = {
    "puct": (codes.RULE_PUCT, codes.BACKUP_MEAN, False),
    "gumbel": (codes.RULE_GUMBEL, codes.BACKUP_MEAN, False),
    "uct": (codes.RULE_UCT, codes.BACKUP_MEAN, False),
    "similarity": (codes.RULE_SIMILARITY, codes.BACKUP_MEAN, False),
    "ments": (codes.RULE_SOFT, codes.BACKUP_SOFT, False),
    "rents": (codes.RULE_SOFT, codes.BACKUP_SOFT, True),
}
_NO_LIMIT = 2**30
_ABSURD = 1e9  # of a weight or a temperature: float32 would run out of numbers
_FIRST = {"min": codes.FIRST_MIN, "parent": codes.FIRST_PARENT}


_MOST = 2**31 - 1  # of a whole number that kernels take


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of the tree methods. Each method reads those that its formula names."""

    discount: float = 1.0  # below 0: two players who move in turn
    c_init: float = 1.25  # PUCT: C(N) = c_init + ln((N + c_base + 1) / c_base)
    c_base: float = 19652.0
    c_explore: float = math.sqrt(2.0)  # UCT and similarity: c
    value_weight: float = 1.0  # similarity: weight of Q; at 0 the search never learns from what it finds
    first_play: str | float = "min"  # PUCT: worth of an unvisited child: "min", "parent", or a number
    normalise: bool = True  # scale Q to [0, 1] by the least and greatest among siblings (and the parent)
    max_backup: bool = False  # a node is worth its best child, not the mean of its simulations
    root_noise: float = 0.0  # PUCT: share of Dirichlet noise in the root's prior
    dirichlet_alpha: float | None = None  # None: 10.83 / legal children
    temperature: float = 0.0  # PUCT, UCT, ...: 0 plays the most visited, else samples visits ** (1 / temperature)
    max_considered: int = 16  # Gumbel: actions in sequential halving
    gumbel_scale: float = 1.0  # 0: no noise, for evaluation
    c_visit: float = 50.0  # Gumbel: sigma(q) = (c_visit + max n) c_scale q
    c_scale: float = 0.1
    tau: float = 0.1  # MENTS, RENTS: temperature of the soft maximum
    epsilon: float = 0.1  # MENTS, RENTS: exploration epsilon * width / ln(N + 1)
    max_depth: int | None = None
    leaves: int = 1  # leaves of one root that wait for one evaluation together (virtual visits keep them apart)
    solve: bool = False  # close off sub-trees whose value is exact
    transpositions: bool = False  # join equal states (the simulator's `key`) to one node
    widen_factor: float = 0.0  # progressive widening: ceil(factor * N ** power) children, best priors first; 0: off
    widen_power: float = 0.5
    players: int = 1  # 2: whose turn it is, the simulator says (`to_play`), and need not alternate
    outcomes: int = 0  # most outcomes of a step where chance decides (a simulator's `num_outcomes` sets it); 0: none

    def __post_init__(self) -> None:
        """Raises `ConfigError` naming the first setting that cannot be used; takes NumPy's numbers as Python's."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, field.name, value.item())
            elif field.type == "bool":
                flag(field.name, value)
        number("discount", self.discount, low=-1.0, high=1.0)
        for name in ("root_noise", "widen_power"):
            number(name, getattr(self, name), low=0.0, high=1.0)
        for name in (
            "temperature",
            "gumbel_scale",
            "epsilon",
            "widen_factor",
            "c_visit",
            "c_scale",
            "c_explore",
            "c_init",
        ):
            number(name, getattr(self, name), low=0.0, high=_ABSURD)
        number("value_weight", self.value_weight, low=-_ABSURD, high=_ABSURD)
        for name in ("tau", "c_base"):
            if number(name, getattr(self, name), high=_ABSURD) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be a positive number")
            number(name, getattr(self, name), low=1.0 / _ABSURD)
        for name in ("leaves", "max_considered"):
            whole(name, getattr(self, name), low=1, high=_MOST)
        whole("players", self.players, low=1, high=2)
        whole("outcomes", self.outcomes, low=0, high=np.iinfo(np.int16).max)
        if self.outcomes and self.transpositions:
            raise ConfigError("transpositions join states of equal depth, and chance keeps none; leave one of them")
        if self.max_depth is not None:
            whole("max_depth", self.max_depth, low=1, high=_MOST)
        if self.dirichlet_alpha is not None and number("dirichlet_alpha", self.dirichlet_alpha) <= 0:
            raise ConfigError(f"dirichlet_alpha is {self.dirichlet_alpha!r}; it must be a positive number, or None")
        if isinstance(self.first_play, str):
            one_of("first_play", self.first_play, _FIRST)
        else:
            number("first_play", self.first_play, low=-float(LARGEST), high=float(LARGEST))


def make_options(changes: dict[str, Any]) -> Options:
    """Returns options with `changes`; an unknown name raises `ConfigError` with the closest known one."""
    given = tuple(changes.items())
    try:
        hash(given)
    except TypeError:  # a list or an array is not a setting of any kind, and is told so
        return _options.__wrapped__(given)
    return _options(given, tuple(type(value) for _, value in given))  # True is 1 to a cache


@functools.lru_cache(maxsize=64)
def _options(changes: tuple[tuple[str, Any], ...], types: tuple[type, ...] = ()) -> Options:
    known = {field.name for field in dataclasses.fields(Options)}
    for name, _ in changes:
        if name not in known:
            raise ConfigError(f"{name!r} is not a setting of a tree search.{suggest(name, known)}")
    return Options(**dict(changes))


def halving_phases(actions: int, simulations: int) -> list[tuple[int, int, int]]:
    """Returns the phases of sequential halving: for each its first simulation, the visits considered, the survivors.

    A survivor gets max(1, floor(S / (ceil(log2 m) m_now))) visits per phase; then m_now <- max(2, floor(m_now / 2)).
    Karnin et al. 2013, http://proceedings.mlr.press/v28/karnin13.html. In simulation s of phase (first, visits, m_now)
    those survivors are considered that have been visited visits + floor((s - first) / m_now) times.
    """
    if actions <= 1:
        return [(0, 0, 1)] if simulations else []
    phases = (actions - 1).bit_length()  # ceil(log2 m), exactly
    found: list[tuple[int, int, int]] = []
    first, visits, alive = 0, 0, actions
    while first < simulations:
        found.append((first, visits, alive))
        extra = max(1, simulations // (phases * alive))
        first, visits, alive = first + extra * alive, visits + extra, max(2, alive // 2)
    return found


def halving_table(actions: int, simulations: int) -> np.ndarray:
    """Returns `halving_phases` of 0 to `actions` actions, int32 [actions + 1, phases, 3], closed by HALVING_OVER."""
    rows = [halving_phases(m, simulations) for m in range(actions + 1)]
    over = (simulations, codes.HALVING_OVER, codes.MANY)
    longest = max(map(len, rows)) + 1
    return np.array([row + [over] * (longest - len(row)) for row in rows], np.int32)


def seed_bits(seed: int) -> int:
    """Returns the last 64 bits of a seed, as the kernels' int64."""
    try:
        bits = operator.index(seed)
    except TypeError:
        raise ConfigError(f"seed is {seed!r}; it must be a whole number") from None
    return (bits + 2**63) % 2**64 - 2**63


def kernel_settings(
    method: str, options: Options, *, simulations: int, visits: int, actions: int, seed: int
) -> Settings:
    """Returns what the kernels read. `visits` bounds the visits that a node can have, `actions` its children."""
    if not isinstance(method, str):
        raise ConfigError(f"method is {method!r}; it must be one of {', '.join(TREE_RULES)}")
    return _settings(method, options, simulations, visits, actions)._replace(seed=seed_bits(seed))


@functools.lru_cache(maxsize=64)
def _settings(method: str, options: Options, simulations: int, visits: int, actions: int) -> Settings:
    if method not in TREE_RULES:
        raise ConfigError(f"no tree search is called {method!r}.{suggest(method, TREE_RULES)}")
    rule, backup, relative = TREE_RULES[method]
    if options.max_backup:
        backup = codes.BACKUP_MAX
    counts = np.arange(visits + 2, dtype=np.float64)
    explore = np.sqrt(counts) * (options.c_init + np.log((counts + options.c_base + 1.0) / options.c_base))
    fixed = not isinstance(options.first_play, str)
    gumbel = rule == codes.RULE_GUMBEL
    considered = min(options.max_considered, actions, simulations)  # of more, each has its first visit due throughout
    return Settings(
        rule=rule,
        backup=backup,
        normalise=bool(options.normalise),
        first_play=codes.FIRST_FIXED if fixed else _FIRST[str(options.first_play)],
        first_value=float(options.first_play) if fixed else 0.0,
        discount=float(options.discount),
        c_scale=float(options.c_scale),
        c_visit=float(options.c_visit),
        c_explore=float(options.c_explore),
        value_weight=float(options.value_weight),
        temperature=float(options.tau),
        epsilon=float(options.epsilon),
        relative=relative,
        widen_factor=float(options.widen_factor),
        widen_power=float(options.widen_power),
        solve=bool(options.solve),
        players=int(options.players),
        max_depth=int(options.max_depth or _NO_LIMIT) * (2 if options.outcomes else 1),  # a move, then what came of it
        outcomes=int(options.outcomes),
        seed=0,
        explore=explore.astype(np.float32),
        shrink=(1.0 / np.sqrt(np.maximum(counts, 1.0))).astype(np.float32),
        halving=halving_table(considered if gumbel else 0, simulations if gumbel else 0),
    )


def is_plain(settings: Settings) -> bool:
    """Returns whether the leaner kernels, which leave all options at their usual values, will do."""
    return (
        settings.normalise
        and settings.first_play == codes.FIRST_MIN
        and settings.backup == codes.BACKUP_MEAN
        and not settings.solve
        and settings.players == 1
        and settings.outcomes == 0
        and settings.widen_factor == 0
        and settings.max_depth >= _NO_LIMIT
    )
