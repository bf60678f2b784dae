"""HybridOptimizationCore: finds, measures and applies the best combination of optimisations for a module.

The original is never touched and never beaten by something worse: the winner must be fitter than it at the lower end
of its measured interval, within the limit on lost accuracy, and that again when it is measured once more, alone and on
other inputs (the best of ten noisy figures flatters); otherwise a copy of the original comes back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from treegym.errors import ConfigError
from treegym.optimize import worker
from treegym.optimize.candidates import ORIGINAL, Candidate, apply, copied
from treegym.optimize.config import CoreConfig
from treegym.optimize.features import kind_of
from treegym.optimize.fitness import fitness, scores, weights_of
from treegym.optimize.generate import applicable, count_for, extend, propose
from treegym.optimize.guess import guessed_inputs
from treegym.optimize.measure import Task, check_module, measure
from treegym.optimize.measure_types import Measurement, MeasureSettings
from treegym.optimize.pareto import pareto_front
from treegym.optimize.selector import CandidateSelector
from treegym.optimize.strategies.base import HybridOptimizationStrategy
from treegym.optimize.targets import Inputs, fresh_inputs
from treegym.optimize.tracker import StrategyTracker, default_path

__all__ = [
    "Evaluated",
    "HybridOptimizationCore",
    "HybridOptimizationStrategy",
]

PATIENCE = 2  # measurements in a row without improvement after which the search has converged
BROKEN = 0.2  # of expected fitness: more than candidates differ by
OFFSPRING = 3  # ensembles that are added around a new best candidate
SECOND_SEED = 50_000_017  # added to the seed of inputs when a winner is measured once more


@dataclass(frozen=True)
class Evaluated:
    """A candidate and what became of it."""

    candidate: Candidate
    measurement: Measurement | None
    fitness: float
    reason: str = ""  # why it has no measurement


class HybridOptimizationCore:
    """The whole way: candidates, selection, measuring, adaptation, the winner.

    Args:
        config: settings by name (HYBRID_CORE's keys), a `CoreConfig`, or None.
        task: a score of a module on its own task (higher is better); None: accuracy is output fidelity.
        learner: makes the policy of rl selection; `treegym.optimization` gives one with the suite's agents.
        progress: called with every `Evaluated` as it comes.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | CoreConfig | None = None,
        *,
        task: Task | None = None,
        learner: Callable[[CoreConfig, HybridOptimizationCore], Any] | None = None,
        progress: Callable[[Evaluated], None] | None = None,
    ) -> None:
        self.config = CoreConfig.of(config)
        self.task, self.progress = task, progress
        self.weights = weights_of(self.config.objective_weights)
        if not self.config.enable_multi_objective_optimization:
            self.weights = weights_of({"speed": 1.0})
        self.base_fitness = float(fitness(scores(1.0, 1.0, 1.0), self.weights))
        path = (self.config.history_path or default_path()) if self.config.enable_adaptive_hybrid else None
        self.tracker = StrategyTracker(path)
        policy = None
        if self.config.selection == "rl":
            if learner is None:
                raise ConfigError(
                    "selection_strategy 'rl' needs learning agents: create the core with "
                    "treegym.optimization.create_hybrid_optimization_core"
                )
            policy = learner(self.config, self)
        self.candidate_selector = CandidateSelector(
            method=self.config.selection,
            tournament_size=self.config.tournament_size,
            weights=dict(zip(("speed", "memory", "accuracy"), self.weights.tolist(), strict=True)),
            seed=self.config.seed,
            policy=policy,
        )
        self.evaluated: list[Evaluated] = []
        self.kind = ""
        self.module: nn.Module | None = None
        self.sample: tuple[Any, ...] = ()
        self._names: list[str] = []
        self._reasons: dict[str, str] = {}
        self.unconfirmed: dict[str, str] = {}  # winners that were none when measured once more, and why
        self._chosen = Evaluated(ORIGINAL, None, self.base_fitness)
        self.processes = self.config.processes or worker.processors()

    # ---------------------------------------------------------------- candidates

    def generate_optimization_candidates(self, module: nn.Module, inputs: Any = None) -> list[Candidate]:
        """Returns the candidates of a module: those strategies that apply to it and their best combinations."""
        source = self._inputs(module, inputs)
        sample = source(self.config.seed)
        self.kind = kind_of(module, sample)
        self._names, self._reasons = applicable(
            module, sample, self.config.optimization_strategies, self._limits(), at_once=self.processes
        )
        count = self.config.num_candidates or count_for(module)
        ensembles = self.config.enable_ensemble_optimization
        return propose(self._names, self.kind, self.tracker, self.weights, count, ensembles=ensembles)

    # ---------------------------------------------------------------- the search

    def hybrid_optimize_module(self, module: nn.Module, inputs: Any = None) -> tuple[nn.Module, dict[str, Any]]:
        """Returns the optimised module (a copy, in evaluation mode) and the result.

        Args:
            module: what to optimise; it is not touched.
            inputs: its arguments: a tensor, a tuple, or a function (of a seed, for fresh ones). None: the module's
                attribute `example_inputs` or, without one, what can be guessed from its layers.
        """
        source = self._inputs(module, inputs)
        original = copied(module)
        check_module(original, source, self.config.seed)
        self.module, self.sample = original, source(self.config.seed)
        self.evaluated = []
        candidates = self.generate_optimization_candidates(original, source)
        if self.config.enable_candidate_selection:
            self._search(original, source, candidates)
        elif candidates:
            singles = [candidate for candidate in candidates if len(candidate.strategies) == 1]
            self._evaluate(original, source, (singles or candidates)[:1])
        self.tracker.save()
        optimized = self._winner(original, source)
        return optimized, self._result(candidates)

    def _search(self, original: nn.Module, source: Inputs, candidates: list[Candidate]) -> None:
        """Measures candidates as selected; the best so far has offspring; stops by the thresholds."""
        waiting = list(candidates)
        seen = set(waiting)
        best, stale = self.base_fitness, 0
        while waiting and len(self.evaluated) < self.config.max_iterations:
            chosen = self._select(waiting)
            if not chosen:
                break
            for found in self._evaluate(original, source, chosen):
                improved = found.fitness - best if self._allowed(found) else 0.0
                stale = 0 if improved > self.config.convergence_threshold else stale + 1
                if improved > 0:
                    best = found.fitness
                    if self.config.enable_ensemble_optimization:
                        waiting += self._offspring(found.candidate, seen)
            if best >= self.config.performance_threshold or (
                stale >= PATIENCE and len(self.evaluated) >= len(candidates)
            ):
                break

    def _select(self, waiting: list[Candidate]) -> list[Candidate]:
        """Takes what is measured next, as many as run side by side, out of `waiting`; nothing: the policy is done."""
        chosen: list[Candidate] = []
        room = self.config.max_iterations - len(self.evaluated)
        while waiting and len(chosen) < min(self.processes, room):
            expected = [self._promise(candidate) for candidate in waiting]
            candidate = self.candidate_selector.select_candidate(waiting, expected)
            if self.candidate_selector.finished and (self.evaluated or chosen):
                break
            waiting.remove(candidate)
            chosen.append(candidate)
        return chosen

    def _promise(self, candidate: Candidate) -> float:
        """Returns the fitness that is expected, less a lot where the limit on accuracy is likely broken.

        That is: by the history of the strategies, or because a part of the candidate has broken it already.
        """
        value = self.tracker.expected_fitness(self.kind, candidate, self.weights)
        drop = self.config.max_accuracy_drop
        if drop is None:
            return value
        broken = 1.0 - self.tracker.expected(self.kind, candidate)[2] > 2 * drop  # histories vary: no closer than that
        for one in self.evaluated:
            m = one.measurement
            if (
                m is not None
                and 1.0 - m.accuracy.low > drop
                and set(one.candidate.strategies) <= set(candidate.strategies)
            ):
                broken = True
        return value - BROKEN if broken else value

    def _offspring(self, best: Candidate, seen: set[Candidate]) -> list[Candidate]:
        larger = [candidate for candidate in extend(best, self._names) if candidate not in seen]
        larger.sort(key=self._promise, reverse=True)
        seen.update(larger[:OFFSPRING])
        return larger[:OFFSPRING]

    def _evaluate(self, original: nn.Module, source: Inputs, candidates: list[Candidate]) -> list[Evaluated]:
        """Measures candidates, each in a child process, and learns from them."""
        sample = source(self.config.seed)

        def work(candidate: Candidate) -> dict[str, Any]:
            return self._measured(original, apply(original, candidate, sample), source, self.config.seed)

        works = [functools.partial(work, candidate) for candidate in candidates]
        outcomes = worker.run_all(works, self._limits(), at_once=self.processes, fork=worker.can_fork(original))
        found = [self._found(candidate, outcome) for candidate, outcome in zip(candidates, outcomes, strict=True)]
        for one in found:
            self.evaluated.append(one)
            if self.config.enable_adaptive_hybrid:
                self.tracker.update(self.kind, one.candidate, one.measurement)
            if self.progress is not None:
                self.progress(one)
        return found

    def _measured(self, original: nn.Module, optimised: nn.Module, source: Inputs, seed: int) -> dict[str, Any]:
        settings = MeasureSettings(max_seconds=self.config.seconds_per_candidate, seed=seed)
        return measure(original, optimised, source, settings, self.task).as_dict()

    def _found(self, candidate: Candidate, outcome: worker.Outcome) -> Evaluated:
        measurement = None if outcome.result is None else Measurement.from_dict(outcome.result)
        value = 0.0 if measurement is None else self.candidate_selector.evaluate_candidate_fitness(measurement)
        return Evaluated(candidate, measurement, value, outcome.reason)

    def _allowed(self, found: Evaluated) -> bool:
        """Returns whether a candidate is surely better than the original, and loses no more accuracy than allowed."""
        m, drop = found.measurement, self.config.max_accuracy_drop
        if m is None or (drop is not None and 1.0 - m.accuracy.low > drop):
            return False
        cautious = fitness(scores(m.speed.low, m.memory.low, m.accuracy.low), self.weights)
        return bool(cautious > self.base_fitness)

    def _winner(self, original: nn.Module, source: Inputs) -> nn.Module:
        """Applies the best candidate that is allowed, in this process, and measures it once more; else the original."""
        self.unconfirmed = {}
        for found in sorted((one for one in self.evaluated if self._allowed(one)), key=lambda one: -one.fitness):
            name = found.candidate.name
            try:
                optimised = apply(original, found.candidate, source(self.config.seed))
            except Exception as error:  # noqa: BLE001 - a strategy's own code; what ran in a child may fail here
                self.unconfirmed[name] = f"could not be applied: {type(error).__name__}: {error}"
                continue
            work = functools.partial(self._measured, original, optimised, source, self.config.seed + SECOND_SEED)
            again = self._found(found.candidate, worker.run(work, self._limits(), fork=worker.can_fork(original)))
            if self._allowed(again):
                self._chosen = again
                return optimised
            self.unconfirmed[name] = again.reason or "measured once more, it was not surely better within the limits"
        self._chosen = Evaluated(ORIGINAL, None, self.base_fitness)
        return original

    # ---------------------------------------------------------------- the result

    def _result(self, candidates: list[Candidate]) -> dict[str, Any]:
        m = self._chosen.measurement
        same = {"value": 1.0, "low": 1.0, "high": 1.0}
        good = [one for one in self.evaluated if one.measurement is not None]
        rows = np.array([[1.0, 1.0, 1.0], *[_metrics(one) for one in good]])
        front = pareto_front(scores(*rows.T))
        names = ["original", *[one.candidate.name for one in good]]
        data = m.as_dict() if m is not None else {}
        return {
            "selected_strategy": self._chosen.candidate.name,
            "strategies": list(self._chosen.candidate.strategies),
            "kind": self.kind,
            "fitness": self._chosen.fitness,
            "base_fitness": self.base_fitness,
            "performance_metrics": {
                "speed_improvement": data.get("speed", dict(same)),
                "memory_efficiency": data.get("memory", dict(same)),
                "accuracy_preservation": data.get("accuracy", dict(same)),
                "output_error": data.get("output_error", 0.0),
            },
            "candidates": [
                {
                    "strategy": one.candidate.name,
                    "fitness": one.fitness,
                    "measurement": None if one.measurement is None else one.measurement.as_dict(),
                    "reason": one.reason,
                }
                for one in self.evaluated
            ],
            "generated": [candidate.name for candidate in candidates],
            "not_applicable": dict(self._reasons),
            "not_confirmed": dict(self.unconfirmed),
            "strategy_weights": self.tracker.dynamic_weights(self.kind, self._names, self.weights),
            "success_rates": self.tracker.success_rates(self.kind, self.weights),
            "pareto_front": [names[i] for i in front],
            "pareto_points": [rows[i].tolist() for i in front],
            "evaluations": len(self.evaluated),
        }

    def report(self) -> str:
        """Returns what was tried, as a table for people."""
        from treegym.optimize.report import as_text

        return as_text(self._result([]))

    # ---------------------------------------------------------------- helpers

    def _limits(self) -> worker.Limits:
        return worker.Limits(seconds=self.config.timeout, megabytes=self.config.megabytes)

    def _inputs(self, module: nn.Module, inputs: Any) -> Inputs:
        if inputs is None:
            inputs = getattr(module, "example_inputs", None)
        return guessed_inputs(module) if inputs is None else fresh_inputs(inputs)


def _metrics(found: Evaluated) -> list[float]:
    m = found.measurement
    assert m is not None
    return [m.speed.value, m.memory.value, m.accuracy.value]
