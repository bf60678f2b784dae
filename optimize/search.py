"""The search: candidates are measured as selected, the best so far has offspring, and thresholds say when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from treegym.optimize.candidates import Candidate
from treegym.optimize.generate import exact_part, extend, likely_broken
from treegym.optimize.selector import CandidateSelector
from treegym.optimize.tracker import StrategyTracker
from treegym.optimize.trials import Evaluated, Trials

__all__ = ["Search"]

PATIENCE = 2  # measurements in a row without improvement after which the search has converged
BROKEN = 0.2  # of expected fitness: more than candidates differ by
OFFSPRING = 3  # ensembles that are added around a new best candidate


class Search:
    """One search on one module.

    Args:
        trials: where candidates are measured.
        selector: says which of those waiting are measured next.
        tracker: what is expected of strategies on modules of this kind.
        names: the strategies that apply.
        learn: called with everything that was measured.
    """

    def __init__(
        self,
        trials: Trials,
        selector: CandidateSelector,
        tracker: StrategyTracker,
        kind: str,
        names: list[str],
        learn: Callable[[Evaluated], None],
    ) -> None:
        self.trials, self.selector, self.tracker = trials, selector, tracker
        self.kind, self.names, self.learn = kind, names, learn

    def run(self, candidates: list[Candidate], first: Sequence[Candidate] = ()) -> None:
        """Measures candidates until a threshold, a budget (of candidates, of time), or a learned policy says stop.

        Args:
            candidates: what to begin with.
            first: those of them that are measured before any is selected, in their order.
        """
        config, trials = self.trials.config, self.trials
        waiting, seen, queue = list(candidates), set(candidates), list(first)
        best, stale = trials.base_fitness, 0
        while waiting and len(trials.evaluated) < config.max_iterations:
            room = min(trials.processes, config.max_iterations - len(trials.evaluated))
            if queue:
                chosen, queue = queue[:room], queue[room:]
                waiting = [one for one in waiting if one not in chosen]
            else:
                chosen = list(self._select(waiting))
            if not chosen:
                break
            for found in self.measure(chosen):
                allowed = trials.allowed(found)
                improved = found.fitness - best if allowed else 0.0
                if not allowed and (rest := exact_part(found.candidate)).strategies and rest not in seen:
                    waiting.append(rest)  # what broke the limit was the other part
                    seen.add(rest)
                stale = 0 if improved > config.convergence_threshold else stale + 1
                if improved > 0:
                    best = found.fitness
                    if config.enable_ensemble_optimization:
                        waiting += self._offspring(found.candidate, seen)
            settled = best > trials.base_fitness or not waiting  # while nothing has won there is more to try
            converged = stale >= PATIENCE and len(trials.evaluated) >= len(candidates) and settled
            if best >= config.performance_threshold or converged or time.monotonic() >= trials.deadline:
                break

    def measure(self, candidates: list[Candidate]) -> list[Evaluated]:
        """Measures candidates and learns from them."""
        found = self.trials.evaluate(candidates)
        for one in found:
            self.learn(one)
        return found

    def _select(self, waiting: list[Candidate]) -> Iterator[Candidate]:
        """Takes what is measured next, as many as run side by side, out of `waiting`; nothing: the policy is done."""
        done = len(self.trials.evaluated)
        for taken in range(min(self.trials.processes, self.trials.config.max_iterations - done, len(waiting))):
            expected = [self._promise(candidate) for candidate in waiting]
            candidate = self.selector.select_candidate(waiting, expected)
            if self.selector.finished and (done or taken):
                return
            waiting.remove(candidate)
            yield candidate

    def _promise(self, candidate: Candidate) -> float:
        """Returns the fitness that is expected, less a lot where the limit on accuracy is likely broken.

        That is: by the history of the strategies, or because a part of the candidate has broken it already.
        """
        value = self.tracker.expected_fitness(self.kind, candidate, self.trials.weights)
        broken = likely_broken(self.kind, candidate, self.tracker, self.trials.config.max_accuracy_drop)
        for one in self.trials.evaluated:
            part = set(one.candidate.strategies) <= set(candidate.strategies)
            broken |= part and one.measurement is not None and self.trials.breaks_limit(one.measurement)
        return value - BROKEN if broken else value

    def _offspring(self, best: Candidate, seen: set[Candidate]) -> list[Candidate]:
        limit = self.trials.config.max_accuracy_drop
        larger = [
            candidate
            for candidate in extend(best, self.names)
            if candidate not in seen and not likely_broken(self.kind, candidate, self.tracker, limit)
        ]
        larger.sort(key=self._promise, reverse=True)
        seen.update(larger[:OFFSPRING])
        return larger[:OFFSPRING]
