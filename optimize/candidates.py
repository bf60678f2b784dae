"""Candidates: ordered combinations of strategies, and how one is applied to a module."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treegym.errors import ConfigError
from treegym.optimize.strategies import STRATEGIES, compatible, load, ordered
from treegym.optimize.strategies.base import Arguments, Given

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ORIGINAL", "Candidate", "apply", "combinations", "copied", "parse"]

SEPARATOR = "+"
ORIGINAL_NAME = "original"


@dataclass(frozen=True)
class Candidate:
    """Strategies in the order in which they are applied; none at all is the original module."""

    strategies: tuple[str, ...]

    @property
    def name(self) -> str:
        return SEPARATOR.join(self.strategies) or ORIGINAL_NAME

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(STRATEGIES[name].family for name in self.strategies))

    @property
    def nominal(self) -> tuple[float, float, float]:
        """Published gains of the strategies, multiplied: speed, memory, accuracy. A prior, never a result."""
        speed = memory = accuracy = 1.0
        for name in self.strategies:
            gain = STRATEGIES[name].nominal
            speed, memory, accuracy = speed * gain[0], memory * gain[1], accuracy * gain[2]
        return speed, memory, accuracy


ORIGINAL = Candidate(())


def parse(name: str) -> Candidate:
    """Returns the candidate of a name such as ``"attention_fusion+bf16"``."""
    names = () if name in ("", ORIGINAL_NAME) else tuple(name.split(SEPARATOR))
    for one in names:
        load(one)
    if not compatible(names):
        raise ConfigError(f"{name!r} repeats a strategy or combines strategies that exclude each other")
    return Candidate(ordered(names))


def apply(module: nn.Module, candidate: Candidate, sample: Arguments, given: Given | None = None) -> nn.Module:
    """Returns an optimised deep copy in evaluation mode; the module itself is not touched.

    A program of a back end that is in the folder of `given` already is taken from there, a new one is put there.

    Raises:
        NotApplicable: if one of the strategies finds nothing to do.
        ConfigError: if the module cannot be copied.
    """
    from treegym.optimize.engines import BackEnd, Engine, read_program, write_program

    given = given or Given()
    last, kept = load(candidate.strategies[-1]) if candidate.strategies else None, None
    if given.folder is not None and isinstance(last, BackEnd):
        kept = given.folder / f"{SEPARATOR.join((*candidate.strategies[:-1], last.program or last.name))}.program"
        if kept.exists():
            return last.restore(read_program(kept), module, sample).eval()
    result = copied(module)
    for name in candidate.strategies:
        strategy = load(name)
        strategy.given = given
        result = strategy.apply(result, sample)
    if kept is not None and isinstance(result, Engine):
        write_program(kept, result.files())
    return result.eval().requires_grad_(False)


def copied(module: nn.Module) -> nn.Module:
    """Returns a deep copy, frozen and in evaluation mode; raises ConfigError for a module that cannot be copied."""
    try:
        return copy.deepcopy(module).eval().requires_grad_(False)
    except Exception as error:
        raise ConfigError(f"the module cannot be copied ({type(error).__name__}: {error})") from error


def combinations(
    names: Iterable[str], largest: int, keep: Callable[[Candidate], bool] = lambda candidate: True
) -> list[Candidate]:
    """Returns every compatible combination of 1 to `largest` strategies, small ones first."""
    found = []
    pool = list(ordered(list(names)))
    for size in range(1, largest + 1):
        for chosen in itertools.combinations(pool, size):
            if compatible(chosen) and keep(Candidate(chosen)):
                found.append(Candidate(chosen))
    return found
