"""What a world's controllers can reach at most, and the best of those that look at counts of answers alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.envs.compute.optimum import best_oracle, optimal_stopping
from treegym.envs.compute.pool import ChainPool

__all__ = ["references_of"]


def references_of(world: Any, prompts: np.ndarray) -> dict[str, float]:
    """Returns rewards by name, with accuracy and spent chains where a controller reaches them; {} where none is known.

    They are of whole chains at one price without a limit on tokens: where segments are shorter, a controller may drop
    a chain before it has paid for all of it. `best_oracle` is a bound where the best score answers.

    Args:
        world: a `ComputeWorld`.
        prompts: the prompts that count, each as much.
    """
    chains: ChainPool = world.chains
    sizes = np.diff(chains.start)[prompts]
    if len(world.prices) > 1 or world.budget is not None or chains.num_segments > 1 or len(set(sizes.tolist())) > 1:
        return {}
    cost = float(world.prices[0]) / world.unit
    limit = min(world.branches, int(sizes[0]))
    counts, lengths = _by_answer(chains, prompts)
    right = np.concatenate([chains.right[prompts], np.zeros((len(prompts), 1), np.bool_)], axis=1)
    stopping = optimal_stopping(counts, right, limit=limit, cost=cost, lengths=lengths)
    found = {"by_counts": stopping.value, "by_counts_accuracy": stopping.accuracy}
    if cost > 0:
        found["by_counts_chains"] = stopping.tokens / world.unit
    if world.aggregate == "best":
        each = [
            best_oracle(chains.score[here], chains.correct[here], chains.length[here], limit=limit, cost=cost)
            for here in map(chains.chains, prompts.tolist())
        ]
        found["best_oracle"] = float(np.mean(each))
    return found


def _by_answer(chains: ChainPool, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many chains of each prompt end with each answer, none being the last, and their mean tokens."""
    answers = chains.right.shape[1]
    counts, tokens = (np.zeros((len(prompts), answers + 1)) for _ in range(2))
    for row, prompt in enumerate(prompts.tolist()):
        here = chains.chains(prompt)
        answer = np.where(chains.answer[here] >= 0, chains.answer[here], answers)
        counts[row] = np.bincount(answer, minlength=answers + 1)
        tokens[row] = np.bincount(answer, chains.length[here], minlength=answers + 1)
    return counts.astype(np.int64), tokens / np.maximum(counts, 1)
