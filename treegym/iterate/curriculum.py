"""Curricula on free text: the primary answers some prompts, and is trained where it is right now and then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from treegym.envs.token_tree.prompts import PromptSet
from treegym.iterate.evaluate import answer_prompts
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.tree.curriculum import practised

__all__ = ["practised_prompts"]

MEASURED = 512  # prompts that are answered in a round: measuring must stay far cheaper than learning
SAMPLES = 4  # answers to each


def practised_prompts(
    prompts: PromptSet, model: Any, how: str | None, *, max_tokens: int, seed: int, form: PromptFormat | None = None
) -> PromptSet:
    """Returns the prompts to practise on by the model's own success, measured on a few sampled answers to each.

    Args:
        prompts: a round's, of which at most 512 are measured, drawn at random.
        model: the primary as it is now.
        how: of `treegym.tree.curriculum`; None leaves the prompts as they are.
        max_tokens: longest answer.
        seed: of the round.
        form: how prompts are put; by default as the model is made for.
    """
    if how is None:
        return prompts
    rng = np.random.default_rng(seed)
    places = np.sort(rng.permutation(len(prompts.roots))[:MEASURED])
    asked = replace(prompts, roots=[prompts.roots[place] for place in places])
    answered = answer_prompts(
        model, asked, max_tokens=max_tokens, form=form, samples=SAMPLES, temperature=1.0, seed=seed
    )
    success = np.array([np.mean(one.right) for one in answered])
    return replace(asked, roots=[asked.roots[place] for place in practised(success, how)])
