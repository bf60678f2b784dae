"""What a run costs, and when its budget is spent: environment steps, model forward passes, CPU seconds.

A forward pass is one state judged by the agent's network (a batch of 64 states counts 64), whether to act, to plan or
to learn; every simulation of a search, every episode that dynamic sampling throws away and every call of a judge is
in it. A verdict is asked for by each episode that ends, and by each simulation of a search that is told what ends are
worth. Evaluation is metered apart and charged to nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from treegym.agents.costs import Costs
from treegym.errors import ConfigError

__all__ = ["BudgetSpent", "Meter", "follow"]


class BudgetSpent(Exception):
    """Ends the learning of an agent that has no callbacks."""


class Meter(Costs):
    """Keeps the costs of one run and calls back at every checkpoint.

    Args:
        budget: the units that are limited, and their amounts.
        checkpoints: how often `evaluate` is called, evenly over the budget.
        evaluate: called with the number of the checkpoint.
    """

    def __init__(self, budget: Mapping[str, float], checkpoints: int, evaluate: Callable[[int], None]) -> None:
        super().__init__()
        self.budget = dict(budget)
        self.checkpoints = checkpoints
        self.evaluate = evaluate
        self.env_steps = 0
        self.evaluation_cpu = 0.0
        self.evaluation_passes = 0
        self.judge_calls = 0
        self.ended = 0  # episodes of training that ended: each is told its verdict
        self.evaluation_verdicts = 0
        self.discarded_groups = 0
        self.charging = True
        self._start = time.process_time()
        self._next = 1

    def charge(self, *, passes: int = 0, simulations: int = 0, verdicts: int = 0) -> None:
        if self.charging:
            super().charge(passes=passes, simulations=simulations, verdicts=verdicts)
        else:
            self.evaluation_passes += passes
            self.evaluation_verdicts += verdicts

    def start(self) -> None:
        """Starts the clock: making the agent is not charged."""
        self._start = time.process_time()
        self.evaluation_cpu = 0.0

    @property
    def cpu_seconds(self) -> float:
        return time.process_time() - self._start - self.evaluation_cpu

    def costs(self) -> dict[str, float | None]:
        passes = None if self.forward_passes is None else self.forward_passes + self.judge_calls
        return {
            "env_steps": self.env_steps,
            "forward_passes": passes,
            "cpu_seconds": self.cpu_seconds,
            "verdicts": self.ended + self.verdicts,
        }

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


def follow(agent: Any, meter: Meter) -> bool:
    """Makes an agent report what it judges and plans to the meter; returns whether that is possible.

    Our agents carry a counter. Of others, such as those of Stable-Baselines3, the modules that turn observations into
    features are listened to: each works once per forward pass.
    """
    if callable(carry := getattr(agent, "carry", None)):
        carry(meter)
        return True
    policy: Any = getattr(agent, "policy", None)
    parts = policy.modules() if hasattr(policy, "modules") else []
    extractors = {id(e): e for part in parts if (e := getattr(part, "features_extractor", None)) is not None}
    for extractor in extractors.values():
        extractor.register_forward_pre_hook(_listener(meter))
    return bool(extractors)


def _listener(meter: Meter) -> Callable[[Any, tuple[Any, ...]], None]:
    def listen(_: Any, arguments: tuple[Any, ...]) -> None:
        seen = arguments[0]
        meter.charge(passes=len(next(iter(seen.values())) if isinstance(seen, Mapping) else seen))

    return listen
