"""What a run costs, and when its budget is spent: environment steps, model forward passes, CPU seconds.

A forward pass is one state judged by the agent's network (a batch of 64 states counts 64), whether to act, to plan or
to learn; every simulation of a search, every episode that dynamic sampling throws away and every call of a judge is
in it. Evaluation is metered apart and charged to nobody.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from treegym.errors import ConfigError

__all__ = ["BudgetSpent", "Meter", "count_forward_passes", "count_learning", "count_simulations"]

JUDGING = ("infer", "judge", "evaluate", "both", "logits", "values")


class BudgetSpent(Exception):
    """Ends the learning of an agent that has no callbacks."""


class Meter:
    """Keeps the costs of one run and calls back at every checkpoint.

    Args:
        budget: the units that are limited, and their amounts.
        checkpoints: how often `evaluate` is called, evenly over the budget.
        evaluate: called with the number of the checkpoint.
    """

    def __init__(self, budget: Mapping[str, float], checkpoints: int, evaluate: Callable[[int], None]) -> None:
        self.budget = dict(budget)
        self.checkpoints = checkpoints
        self.evaluate = evaluate
        self.env_steps = 0
        self.forward_passes: int | None = 0
        self.evaluation_cpu = 0.0
        self.evaluation_passes = 0
        self.simulations = 0
        self.judge_calls = 0
        self.discarded_groups = 0
        self.charging = True
        self._depth = 0
        self._start = time.process_time()
        self._next = 1

    def start(self) -> None:
        """Starts the clock: making the agent is not charged."""
        self._start = time.process_time()
        self.evaluation_cpu = 0.0

    @property
    def cpu_seconds(self) -> float:
        return time.process_time() - self._start - self.evaluation_cpu

    def costs(self) -> dict[str, float | None]:
        passes = None if self.forward_passes is None else self.forward_passes + self.judge_calls
        return {"env_steps": self.env_steps, "forward_passes": passes, "cpu_seconds": self.cpu_seconds}

    @property
    def spent(self) -> float:
        """The share of the budget that is used up; of several units, the largest share."""
        costs = self.costs()
        shares = []
        for unit, amount in self.budget.items():
            cost = costs[unit]
            if cost is None:
                raise ConfigError(
                    "the budget is in forward passes, but this agent does not say how many it makes: give it an "
                    "attribute `forward_passes`, or budget env_steps or cpu_seconds"
                )
            shares.append(cost / amount)
        return max(shares)

    @contextlib.contextmanager
    def passing(self, states: int) -> Iterator[None]:
        """Counts so many forward passes, and nothing that is called within."""
        if self._depth == 0 and self.charging:
            self.forward_passes = (self.forward_passes or 0) + states
        elif self._depth == 0:
            self.evaluation_passes += states
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def tick(self) -> bool:
        """Evaluates if a checkpoint was reached; returns whether there is budget left."""
        spent = self.spent
        while self._next < self.checkpoints and spent >= self._next / self.checkpoints:
            self.checkpoint(self._next)
            self._next += 1
        return spent < 1.0

    def checkpoint(self, number: int) -> None:
        """Evaluates without charging the run for it."""
        before = time.process_time()
        self.charging = False
        try:
            self.evaluate(number)
        finally:
            self.charging = True
            self.evaluation_cpu += time.process_time() - before


def count_forward_passes(policy: Any, meter: Meter) -> bool:
    """Makes a policy report every state it judges to the meter; returns whether that is possible.

    Our policies judge states in `JUDGING`; those of Stable-Baselines3 call `extract_features` once a forward pass. A
    call inside another is the same pass.
    """
    ours = [name for name in JUDGING if callable(getattr(policy, name, None))]
    if {"infer", "evaluate"} <= set(ours):
        judges = [(policy, name) for name in ours]
    else:  # networks inside a policy, such as DQN's, judge by themselves
        parts = policy.modules() if hasattr(policy, "modules") else [policy]
        judges = [(part, "extract_features") for part in parts if callable(getattr(part, "extract_features", None))]
    for part, name in judges:
        setattr(part, name, _counted(getattr(part, name), meter))
    return bool(judges)


def count_learning(agent: Any, meter: Meter) -> None:
    """Makes a learner with a hand-written backward pass report the states it learns from: that goes past its policy."""
    make_perceptron = getattr(agent, "_perceptron", None)
    if not callable(make_perceptron):
        return

    @functools.wraps(make_perceptron)
    def perceptron() -> Any:
        found = make_perceptron()
        if found is not None and "learn" not in vars(found):
            found.learn = _counted(found.learn, meter)
        return found

    agent._perceptron = perceptron


def count_simulations(agent: Any, meter: Meter) -> None:
    """Makes a planning agent report every simulation to the meter, as one forward pass each.

    On closed trees planners judge every node once and look it up afterwards. That saves time, which the CPU axis shows;
    the axis of forward passes charges what the same plan would cost where nothing can be looked up.
    """
    make_planner = getattr(agent, "planner", None)
    if not callable(make_planner):
        return
    seen: dict[int, Any] = {}

    @functools.wraps(make_planner)
    def planner(*args: Any, **kwargs: Any) -> Any:
        found = make_planner(*args, **kwargs)
        if found is not None and id(found) not in seen:
            seen[id(found)] = found  # kept, so that the number stays its own
            found.search = _counted_search(found.search, meter)
            found.prepare = _uncounted(found.prepare, meter)
        return found

    agent.planner = planner


def _counted(method: Callable[..., Any], meter: Meter) -> Callable[..., Any]:
    @functools.wraps(method)
    def counted(observation: Any, *args: Any, **kwargs: Any) -> Any:
        first = next(iter(observation.values())) if isinstance(observation, Mapping) else observation
        with meter.passing(len(first)):
            return method(observation, *args, **kwargs)

    return counted


def _counted_search(search: Callable[..., Any], meter: Meter) -> Callable[..., Any]:
    @functools.wraps(search)
    def counted(states: Any, *, num_simulations: int, **kwargs: Any) -> Any:
        meter.simulations += num_simulations * len(states) if meter.charging else 0
        with meter.passing(num_simulations * len(states)):
            return search(states, num_simulations=num_simulations, **kwargs)

    return counted


def _uncounted(method: Callable[..., Any], meter: Meter) -> Callable[..., Any]:
    @functools.wraps(method)
    def uncounted(*args: Any, **kwargs: Any) -> Any:
        with meter.passing(0):
            return method(*args, **kwargs)

    return uncounted
