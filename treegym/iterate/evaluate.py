"""How good a language model is at prompts, on its own: greedy answers, without a tree, judged by the verifier."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from treegym.envs.token_tree.prompts import PromptSet, load_prompts
from treegym.errors import DataError
from treegym.models.base import LanguageModel

__all__ = ["evaluate_model", "load_answered", "wilson_interval"]


def load_answered(source: str, *, seed: int) -> PromptSet:
    """Returns the prompts a source names; raises DataError for the first one without an answer."""
    prompts = load_prompts(source, seed=seed)
    for number, root in enumerate(prompts.roots, start=1):
        if not root.answer.strip():
            raise DataError(
                f"{source}: prompt {number} ({root.prompt!r}) has no answer to compare with; "
                "give every prompt one, or leave it out"
            )
    return prompts


def evaluate_model(model: LanguageModel, prompts: PromptSet, *, max_tokens: int = 24) -> dict[str, Any]:
    """Returns accuracy with its 95 % interval, accuracy by kind, and the mean length of the answers."""
    contexts = [list(root.tokens) or model.tokenizer.encode(root.prompt) for root in prompts.roots]
    answers = model.generate(contexts, max_new_tokens=max_tokens)
    eos = model.tokenizer.eos_id
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for root, tokens in zip(prompts.roots, answers, strict=True):
        ended = bool(tokens) and tokens[-1] == eos
        text = model.tokenizer.decode([token for token in tokens if token != eos])
        by_kind[root.kind or "all"].append(ended and prompts.verify(root, text) >= 0.5)
    right = [correct for kind in by_kind.values() for correct in kind]
    low, high = wilson_interval(sum(right), len(right))
    return {
        "prompts": len(right),
        "accuracy": sum(right) / len(right),
        "low": low,
        "high": high,
        "by_kind": {kind: float(np.mean(found)) for kind, found in sorted(by_kind.items())},
        "mean_tokens": float(np.mean([len(tokens) for tokens in answers])),
    }


def wilson_interval(successes: int, trials: int, *, z: float = 1.96) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share: sensible at 0 and at 1, too."""
    if not trials:
        return 0.0, 1.0
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * float(np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)))
    return max(0.0, centre - half), min(1.0, centre + half)
