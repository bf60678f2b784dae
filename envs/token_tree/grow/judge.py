"""A language model as the judge of a growing tree: its scores are stored beside the verifier's verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treegym.models.base import Scores
from treegym.rewards.judge.local import LocalJudge
from treegym.rewards.judge.prompt import Case

__all__ = ["ModelJudge"]


class ModelJudge:
    """Fits `Judge`: the probability that a model says yes after the filled-in template."""

    def __init__(
        self, model: str | Scores, *, template: str = "{prompt}{answer}?", yes: str = "y", no: str = "n"
    ) -> None:
        self._judge = LocalJudge(model=model, template=template, yes=yes, no=no)

    @property
    def identity(self) -> list[Any]:
        """What its scores depend on; a resumed growth must have the same."""
        return self._judge.identity

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        cases = [Case(prompt, answer, None, None) for prompt, answer in zip(prompts, answers, strict=True)]
        scores, _ = self._judge.scores(cases)
        return np.array([np.nan if score is None else score for score in scores], np.float32)
