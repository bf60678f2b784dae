"""Which candidates are worth measuring on a module: what applies, ranked by what is expected of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from treegym.optimize import worker
from treegym.optimize.candidates import SEPARATOR, Candidate, apply, combinations
from treegym.optimize.measure import warm_up_process
from treegym.optimize.strategies import STRATEGIES, compatible, expand, load, ordered
from treegym.optimize.strategies.base import Arguments, call, map_tensors
from treegym.optimize.tracker import StrategyTracker

__all__ = [
    "BY_NAME",
    "LONGEST",
    "SUGGESTED",
    "applicable",
    "count_for",
    "exact_part",
    "extend",
    "heaviest",
    "likely_broken",
    "propose",
    "proven",
]

# Taken only when asked for by name: the first calls of some take seconds to minutes, and the last gains nothing where
# both sides are measured in inference mode.
BY_NAME = ("compile", "compile_autotune", "openvino_tuned", "inference_mode")
BUILT = ("back_end", "compile_freezing", *BY_NAME)  # families and strategies that take seconds: never tried just to see
LONGEST = 4  # strategies in an ensemble
PARTS = 8  # strategies that ensembles are made of

# What tends to help each kind of module: priors that break ties, not rules.
SUGGESTED: dict[str, tuple[str, ...]] = {
    "moe": ("kernel_fusion", "quantization", "attention_fusion"),
    "latent_attention": ("kernel_fusion", "quantization", "attention_fusion"),
    "llama": ("memory_pooling", "kernel_fusion", "quantization"),
    "language_model": ("attention_fusion", "memory_pooling"),
    "transformer": ("attention_fusion", "quantization"),
    "multimodal": ("kernel_fusion", "memory_pooling"),
    "generator": ("quantization", "memory_pooling"),
    "dense": ("quantization", "memory_pooling"),
    "qwen": ("attention_fusion", "kernel_fusion"),
}
# Pairs of families that the founding document asks for.
PAIRS = (
    {"kernel_fusion", "quantization"}, {"memory_pooling", "attention_fusion"}, {"quantization", "memory_pooling"},
)  # fmt: skip
# What won most often on modules of many kinds (`benchmarks/selection_peers.py`), in that order: measured before the
# search begins.
PROVEN = ("openvino_bf16", "openvino_mixed", "bf16", "onnx", "compile_freezing+bf16")
EXACT = ("kernel_fusion", "memory_pooling", "attention_fusion")  # families that compute the same in another way
DOUBT = 2.0  # expected losses up to so many times the limit are worth a try
_BONUS = 0.002  # of fitness, for each strategy of a suggested family


def count_for(module: nn.Module) -> int:
    """Returns how many candidates a module gets by default: 5, 8 from a million parameters, 10 from a hundred."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return 5 if parameters < 10**6 else 8 if parameters < 10**8 else 10


def applicable(
    module: nn.Module, sample: Arguments, strategies: Sequence[str], limits: worker.Limits, *, at_once: int = 1
) -> tuple[list[str], dict[str, str]]:
    """Tries every strategy alone on a copy, in child processes; returns those that ran, and why others did not.

    Those that take seconds to build are believed to work where what they need is installed. Families stand for their
    strategies, without those of `BY_NAME`; they are tried when named themselves.
    """
    warm_up_process()
    asked = set(strategies)
    names = [name for name in expand(list(strategies)) if name not in BY_NAME or name in asked]
    reasons = {name: load(name).missing() for name in names if name in STRATEGIES.own}
    reasons = {name: reason for name, reason in reasons.items() if reason}
    names = [name for name in names if name not in reasons]
    built = [name for name in names if name in BUILT or STRATEGIES[name].family in BUILT]
    names = [name for name in names if name not in built]

    def attempt(name: str) -> dict[str, Any]:
        import torch

        with torch.no_grad():
            call(apply(module, Candidate((name,)), sample), map_tensors(sample, torch.clone))
        return {}

    works = [functools.partial(attempt, name) for name in names]
    outcomes = worker.run_all(works, limits, at_once=at_once, fork=worker.can_fork(module))
    good = [name for name, outcome in zip(names, outcomes, strict=True) if outcome.result is not None]
    reasons |= {name: outcome.reason for name, outcome in zip(names, outcomes, strict=True) if outcome.result is None}
    return good + built, reasons


def propose(
    names: Sequence[str],
    kind: str,
    tracker: StrategyTracker,
    weights: np.ndarray,
    count: int,
    *,
    ensembles: bool = True,
    limit: float | None = None,
) -> list[Candidate]:
    """Returns `count` candidates: the singles and the ensembles of which most is expected, half and half.

    The best ensemble that computes the same and, for each of the founding pairs of families, the best that has both are
    among them, room permitting.
    Candidates that are expected to lose clearly more accuracy than `limit` are not offered; where all are, the one
    that is expected to lose least is.
    """

    def worth(candidate: Candidate) -> float:
        bonus = sum(_BONUS for family in candidate.families if family in SUGGESTED.get(kind, ()))
        return tracker.expected_fitness(kind, candidate, weights) + bonus

    def within(candidate: Candidate) -> bool:
        return not likely_broken(kind, candidate, tracker, limit)

    singles = [candidate for candidate in map(_single, names) if within(candidate)]
    if not singles:
        return sorted(map(_single, names), key=lambda one: -tracker.expected(kind, one)[2])[:1]
    singles.sort(key=worth, reverse=True)
    names = [candidate.strategies[0] for candidate in singles]
    if not ensembles:
        return singles[:count]
    parts = heaviest(names, kind, tracker, weights)
    several = [one for one in combinations(parts, LONGEST) if len(one.strategies) > 1 and within(one)]
    several.sort(key=worth, reverse=True)
    first = [next((one for one in several if exact_part(one) == one), None)]
    first += [next((one for one in several if pair <= set(one.families)), None) for pair in PAIRS]
    several = list(dict.fromkeys([*(one for one in first if one is not None), *several]))
    half = min(len(singles), count // 2 or 1)
    chosen = singles[:half] + several[: count - half]
    return chosen + singles[half : half + count - len(chosen)]


def proven(names: Sequence[str], kind: str, tracker: StrategyTracker, limit: float | None) -> list[Candidate]:
    """Returns the short list for a module: of what applies to it, what wins most often."""
    candidates = [Candidate(tuple(name.split(SEPARATOR))) for name in PROVEN]
    candidates = [Candidate(ordered(one.strategies)) for one in candidates if set(one.strategies) <= set(names)]
    return [one for one in candidates if not likely_broken(kind, one, tracker, limit)]


def likely_broken(kind: str, candidate: Candidate, tracker: StrategyTracker, limit: float | None) -> bool:
    """Returns whether a candidate is expected to lose clearly more accuracy than a limit; histories vary."""
    return limit is not None and 1.0 - float(tracker.expected(kind, candidate)[2]) > DOUBT * limit


def exact_part(candidate: Candidate) -> Candidate:
    """Returns a candidate without what changes number formats or weights: it computes the same in another way."""
    return Candidate(tuple(name for name in candidate.strategies if STRATEGIES[name].family in EXACT))


def _single(name: str) -> Candidate:
    return Candidate((name,))


def heaviest(names: Sequence[str], kind: str, tracker: StrategyTracker, weights: np.ndarray) -> list[str]:
    """Returns the strategies that ensembles are made of: those of the largest weight in the history."""
    shares = tracker.dynamic_weights(kind, list(names), weights)
    return sorted(names, key=lambda name: shares[name], reverse=True)[:PARTS]


def extend(best: Candidate, names: Sequence[str]) -> list[Candidate]:
    """Returns the ensembles that add one strategy to a candidate."""
    larger = []
    for name in names:
        chosen = (*best.strategies, name)
        if len(chosen) <= LONGEST and compatible(chosen):
            larger.append(Candidate(ordered(chosen)))
    return larger
