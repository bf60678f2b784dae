"""Optuna as the searcher: its constrained multi-objective sampler over the strategies that apply.

A trial says for every exact strategy whether it is in, and which one of the number formats, compilers and back ends;
its values are the logs of the speed and memory ratios, its constraint is the limit on lost accuracy. Combinations that
exclude each other are pruned without being measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from treegym.errors import require
from treegym.optimize.candidates import Candidate
from treegym.optimize.generate import EXACT
from treegym.optimize.search import Search
from treegym.optimize.strategies import STRATEGIES, compatible, ordered

__all__ = ["OptunaSearch"]

NONE = "none"
MISSES = 40  # combinations in a row that exclude each other or were measured: the space is searched through


class OptunaSearch(Search):
    """Measures the short list and the first candidates, then what Optuna asks for."""

    def run(self, candidates: list[Candidate], first: Sequence[Candidate] = ()) -> None:
        optuna = require("optuna", extra="optuna", purpose="selection_strategy 'optuna'")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        config, trials = self.trials.config, self.trials
        sampler = optuna.samplers.TPESampler(
            seed=config.seed, n_startup_trials=max(4, len(candidates)),
            constraints_func=lambda trial: (trial.user_attrs["violation"],),
        )  # fmt: skip
        study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
        for known in dict.fromkeys([*first, *candidates]):
            study.enqueue_trial(self._parameters(known))
        seen: set[Candidate] = set()
        misses = 0
        while len(trials.evaluated) < config.max_iterations and time.monotonic() < trials.deadline and misses < MISSES:
            asked: dict[Candidate, Any] = {}
            while len(asked) < min(trials.processes, config.max_iterations - len(trials.evaluated)) and misses < MISSES:
                trial = study.ask()
                candidate = self._suggested(trial)
                if candidate is None or candidate in seen:
                    trial.set_user_attr("violation", 1.0)
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    misses += 1
                    continue
                seen.add(candidate)
                asked[candidate], misses = trial, 0
            for found in self.measure(list(asked)):
                trial, m = asked[found.candidate], found.measurement
                if m is None:
                    trial.set_user_attr("violation", 1.0)
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    continue
                drop = config.max_accuracy_drop
                trial.set_user_attr("violation", 0.0 if drop is None else 1.0 - m.accuracy.low - drop)
                study.tell(trial, [math.log(m.speed.value), math.log(m.memory.value)])

    def _groups(self) -> dict[str, list[str]]:
        """Returns the strategies of which a trial takes one at most, by the name of the choice."""
        rest = [name for name in self.names if not self._is_exact(name)]
        wraps = [name for name in rest if STRATEGIES[name].family in ("back_end", "kernel_fusion")]
        formats = [name for name in rest if STRATEGIES[name].family == "quantization"]
        others = {name: [name] for name in rest if name not in (*wraps, *formats)}
        return {"format": formats, "wrap": wraps, **others}

    @staticmethod
    def _is_exact(name: str) -> bool:
        return STRATEGIES[name].family in EXACT and not name.startswith("compile")

    def _suggested(self, trial: Any) -> Candidate | None:
        chosen = [
            name for name in self.names if self._is_exact(name) and trial.suggest_categorical(name, [False, True])
        ]
        for group, names in self._groups().items():
            one = trial.suggest_categorical(group, [NONE, *names])
            chosen += [] if one == NONE else [one]
        return Candidate(ordered(chosen)) if chosen and compatible(ordered(chosen)) else None

    def _parameters(self, candidate: Candidate) -> dict[str, Any]:
        parts = set(candidate.strategies)
        return {name: name in parts for name in self.names if self._is_exact(name)} | {
            group: next((name for name in names if name in parts), NONE) for group, names in self._groups().items()
        }
