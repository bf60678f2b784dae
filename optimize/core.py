"""HybridOptimizationCore: finds, measures and applies the best combination of optimisations for a module.

The original is never touched and never beaten by something worse (see `treegym.optimize.trials`): where nothing is
surely better, a copy of the original comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from treegym.errors import ConfigError
from treegym.optimize import worker
from treegym.optimize.cache import MeasurementCache, key_of
from treegym.optimize.candidates import Candidate, copied
from treegym.optimize.config import CoreConfig
from treegym.optimize.delivery import Delivery
from treegym.optimize.features import kind_of
from treegym.optimize.fitness import OBJECTIVES, weights_of
from treegym.optimize.generate import applicable, count_for, propose, proven
from treegym.optimize.hardware import Kind
from treegym.optimize.inputs import Inputs, fresh_inputs, guessed_inputs
from treegym.optimize.measure import Task, check_module
from treegym.optimize.optuna_search import OptunaSearch
from treegym.optimize.report import as_text, result_of
from treegym.optimize.search import Search
from treegym.optimize.selector import CandidateSelector
from treegym.optimize.strategies.base import Arguments
from treegym.optimize.tracker import StrategyTracker, default_path
from treegym.optimize.trials import Elsewhere, Evaluated, Trials

__all__ = ["HybridOptimizationCore"]

RESERVED = 8.0  # seconds of a budget that the last measurement of the winner takes


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
        several = self.config.enable_multi_objective_optimization
        self.weights = weights_of(self.config.objective_weights if several else {"speed": 1.0})
        path = (self.config.history_path or default_path()) if self.config.enable_adaptive_hybrid else None
        self.tracker = StrategyTracker(path)
        if self.config.selection == "rl" and learner is None:
            raise ConfigError(
                "selection_strategy 'rl' needs learning agents: create the core with "
                "treegym.optimization.create_hybrid_optimization_core"
            )
        self.candidate_selector = CandidateSelector(
            method="rank" if self.config.selection == "optuna" else self.config.selection,
            tournament_size=self.config.tournament_size,
            weights=dict(zip(OBJECTIVES, self.weights.tolist(), strict=True)),
            seed=self.config.seed,
            policy=None if learner is None else learner(self.config, self),
        )
        self.kind = ""
        self.module: nn.Module | None = None  # the last one, and a sample of its inputs
        self.sample: Arguments = ()
        self.trials: Trials | None = None  # of the last module
        self.elsewhere: Elsewhere | None = None  # measures candidates on machines of the kind `machine`
        self.machine: Kind | None = None  # None: this machine's
        self.names: list[str] = []  # of the strategies that apply to it
        self.reasons: dict[str, str] = {}  # why others do not
        self.first: list[Candidate] = []  # of the candidates: the short list, measured before the search
        self._result: dict[str, Any] = {}

    @property
    def evaluated(self) -> list[Evaluated]:
        """What was measured on the last module."""
        return [] if self.trials is None else self.trials.evaluated

    def generate_optimization_candidates(self, module: nn.Module, inputs: Any = None) -> list[Candidate]:
        """Returns the candidates of a module: those strategies that apply to it and their best combinations."""
        config = self.config
        sample = _inputs_of(module, inputs)(config.seed)
        self.kind = kind_of(module, sample)
        limits = worker.Limits(seconds=config.timeout, megabytes=config.megabytes)
        at_once = config.processes or worker.processors()
        asked = config.strategies_for(self.kind, f"{type(module).__name__} {type(module).__module__}")
        self.names, self.reasons = applicable(module, sample, asked, limits, at_once=at_once)
        count = config.num_candidates or count_for(module)
        ensembles = config.enable_ensemble_optimization
        limit = config.max_accuracy_drop
        others = propose(self.names, self.kind, self.tracker, self.weights, count, ensembles=ensembles, limit=limit)
        first = proven(self.names, self.kind, self.tracker, limit)
        self.first = [one for one in first if ensembles or len(one.strategies) == 1]
        return list(dict.fromkeys([*self.first, *others]))

    def hybrid_optimize_module(
        self, module: nn.Module, inputs: Any = None, *, delivery: Delivery | None = None
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Returns the optimised module (a copy, in evaluation mode) and the result.

        Args:
            module: what to optimise; it is not touched.
            inputs: its arguments: a tensor, a tuple, a dict of named ones, a list of tuples or dicts (of several
                shapes), or a function (of a seed, for fresh ones). None: the module's attribute `example_inputs` or,
                without one, what can be guessed from its layers.
            delivery: writes the winner's weights, and has it judged in a fresh process that rebuilds it from them.
        """
        if not self.config.enable_hybrid_optimization:
            note = "enable_hybrid_optimization is off: nothing was tried"
            return copied(module), {"selected_strategy": "original", "strategies": [], "note": note}
        start = time.monotonic()
        source = _inputs_of(module, inputs)
        original = copied(module)
        check_module(original, source, self.config.seed)
        self.module, self.sample = original, source(self.config.seed)
        self.trials = Trials(original, source, self.config, self.weights, self.task)
        if (budget := self.config.time_budget) is not None:
            self.trials.deadline = start + max(budget - RESERVED, budget / 2)
        candidates = self.generate_optimization_candidates(original, source)
        self.trials.elsewhere = self.elsewhere
        if self.config.cache_path is not None and self.task is None:
            cache, key = MeasurementCache(self.config.cache_path), key_of(original, self.sample, self.machine)
            self.trials.known, self.trials.keep = cache.of(key), partial(cache.add, key)
        kind = OptunaSearch if self.config.selection == "optuna" else Search
        search = kind(self.trials, self.candidate_selector, self.tracker, self.kind, self.names, self._learn)
        if self.config.enable_candidate_selection:
            search.run(candidates, self.first)
        elif candidates:
            singles = [candidate for candidate in candidates if len(candidate.strategies) == 1]
            search.measure((singles or candidates)[:1])
        self.tracker.save()
        optimized, chosen = self.trials.winner(delivery)
        found = result_of(
            self.trials, chosen, kind=self.kind, names=self.names, reasons=self.reasons, tracker=self.tracker
        )
        self._result = found | {"generated": [candidate.name for candidate in candidates]}
        return optimized, self._result

    def report(self) -> str:
        """Returns what was tried on the last module, as a table for people."""
        if not self._result:
            raise ConfigError("nothing was optimised yet; call hybrid_optimize_module first")
        return as_text(self._result)

    def _learn(self, found: Evaluated) -> None:
        if self.config.enable_adaptive_hybrid:
            self.tracker.update(self.kind, found.candidate, found.measurement)
        if self.progress is not None:
            self.progress(found)


def _inputs_of(module: nn.Module, inputs: Any) -> Inputs:
    if inputs is None:
        inputs = getattr(module, "example_inputs", None)
    return guessed_inputs(module) if inputs is None else fresh_inputs(inputs)
