"""The two small models that judge texts: is this answer right, is this text complete; and how well they do.

Both are causal language models: after the text and a question mark they say ``y`` or ``n``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from treegym.models.family.answering import yes_logits
from treegym.models.family.bundled import bundled_path
from treegym.models.tasks import FORMS, KINDS, Problem
from treegym.models.tokens.char_tokenizer import CharTokenizer

__all__ = ["YesNoModel", "completeness_report", "judge_report"]


class YesNoModel:
    """A bundled model that answers yes or no about whole texts (prompt and answer)."""

    def __init__(self, name: str) -> None:
        path = bundled_path(name)
        self.tokenizer = CharTokenizer.load(path / "tokenizer.json")
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, local_files_only=True, use_safetensors=True
        ).eval()

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Returns how likely yes is for each text: ``[B] float64``."""
        odds = yes_logits(self.model, self.tokenizer, texts).astype(np.float64)
        return 1.0 / (1.0 + np.exp(-odds))


def judge_report(held_out: Sequence[Problem], name: str = "tiny-judge") -> list[dict[str, Any]]:
    """Returns the judge's accuracy and bias: how often it accepts right, corrupted and slipped answers, by form.

    A slipped answer is a right one whose last digit is one too large: no misconception, so no teacher gives it.
    """
    judge = YesNoModel(name)
    rows: list[dict[str, Any]] = []
    for form in FORMS:
        pairs = [(problem, KINDS[problem.kind]) for problem in held_out]
        correct = [problem.prompt + kind.worked(problem.prompt, form=form) for problem, kind in pairs]
        corrupted = [p.prompt + kind.worked(p.prompt, form=form, corrupted=True) for p, kind in pairs]
        slipped = [f"{text[:-2]}{(int(text[-2]) + 1) % 10}." for text in correct]
        for kind_name in (*KINDS, "all"):
            chosen = np.array([kind_name in (problem.kind, "all") for problem in held_out], bool)  # [B]
            accepted = [judge.probabilities(texts)[chosen] > 0.5 for texts in (correct, corrupted, slipped)]
            rows.append(
                {
                    "form": form,
                    "kind": kind_name,
                    "accepts right": float(accepted[0].mean()),
                    "accepts corrupted": float(accepted[1].mean()),
                    "accepts slipped": float(accepted[2].mean()),
                    "accuracy": float((accepted[0].mean() + 1 - accepted[1].mean()) / 2),
                }
            )
    return rows


def completeness_report(held_out: Sequence[Problem], name: str = "tiny-complete") -> list[dict[str, Any]]:
    """Returns the accuracy on every prefix of right and corrupted answers that ends in a full stop, and elsewhere."""
    texts: dict[str, list[str]] = {"complete": [], "stopped too early": [], "within a step": []}
    for problem in held_out:
        for form in FORMS:
            for corrupted in (False, True):
                answer = KINDS[problem.kind].worked(problem.prompt, form=form, corrupted=corrupted)
                for end in range(1, len(answer) + 1):
                    stops = answer[end - 1] == "."
                    where = "complete" if end == len(answer) else "stopped too early" if stops else "within a step"
                    texts[where].append(problem.prompt + answer[:end])
    model = YesNoModel(name)
    rows = []
    for where, prefixes in texts.items():
        said = model.probabilities(prefixes) > 0.5
        rows.append(
            {"prefixes": where, "texts": len(prefixes), "accuracy": float((said == (where == "complete")).mean())}
        )
    return rows
