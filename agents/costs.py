"""What judging and planning cost: a counter that policies and planners carry.

A forward pass is one state judged by a network (a batch of 64 states counts 64), whether to act, to plan or to learn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["JUDGING", "Costs", "counted"]

JUDGING = ("infer", "judge", "evaluate", "both", "logits", "values")  # what a policy judges states in


class Costs:
    """Counts forward passes and simulations. What is called within something that counts is part of it."""

    def __init__(self) -> None:
        self.forward_passes: int | None = 0  # None: whoever judges cannot be counted
        self.simulations = 0
        self.verdicts = 0  # simulations that were told what an end is worth: they ask for one verdict each, at most
        self._depth = 0

    def charge(self, *, passes: int = 0, simulations: int = 0, verdicts: int = 0) -> None:
        """Adds to the counts."""
        self.forward_passes = (self.forward_passes or 0) + passes
        self.simulations += simulations
        self.verdicts += verdicts

    @contextmanager
    def passing(self, states: int, *, simulations: int = 0, verdicts: int = 0) -> Generator[None]:
        """Counts so many forward passes, and nothing that is called within."""
        if self._depth == 0:
            self.charge(passes=states, simulations=simulations, verdicts=verdicts)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


def counted(method: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a method of a policy count the states of its first argument in the ``costs`` it carries, if any."""

    @functools.wraps(method)
    def judging(self: Any, observation: Any, *args: Any, **kwargs: Any) -> Any:
        if self.costs is None:
            return method(self, observation, *args, **kwargs)
        first = next(iter(observation.values())) if isinstance(observation, Mapping) else observation
        with self.costs.passing(len(first)):
            return method(self, observation, *args, **kwargs)

    return judging
