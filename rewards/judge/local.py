"""A judge in this process: any language model, constrained to its verdict tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.models.base import Scores
from treegym.rewards.judge.prompt import Case, fill
from treegym.rewards.local import local_model, verdict_probability

__all__ = ["LocalJudge", "ModelJudge"]


class LocalJudge:
    """The probability of the yes token among the verdict tokens, after a filled-in template.

    Args:
        model: bundled name, directory or hub name, or a model.
        template: what the model reads; ``{prompt}``, ``{answer}``, ``{rival}``, ``{reference}``, ``{rubric}`` and
            ``{principle}`` are filled in.
        yes: what it would say if the answer is good (in a pair: if the first answer is better).
        no: what it would say if not.
        rubric: what to judge by.
        principles: a constitution: the template is asked once a principle, and the mean counts.
        chat: whether the filled-in template goes through the model's chat template, as instruct models expect; by
            default when the model has one.
    """

    def __init__(
        self,
        *,
        model: str | Scores,
        template: str,
        yes: str = "y",
        no: str = "n",
        rubric: str = "",
        principles: Sequence[str] = (),
        chat: bool | None = None,
    ) -> None:
        self.chat, self.rubric = chat, rubric
        self._model, self.template, self.yes, self.no = model, template, yes, no
        self.principles = tuple(principles)

    @property
    def identity(self) -> list[Any]:
        """What a judgement depends on besides the case; part of the cache's key."""
        fingerprint = local_model(self._model).fingerprint()
        return ["local", fingerprint, self.template, self.yes, self.no, self.rubric, list(self.principles), self.chat]

    def scores(
        self, cases: Sequence[Case], *, keep: Callable[[int, float], None] | None = None
    ) -> tuple[list[float | None], dict[int, str]]:
        """Returns a score for each case; the dictionary of failures is empty (a broken model raises)."""
        model = local_model(self._model)
        rows = []
        for principle in self.principles or ("",):
            more = {"principle": principle, "rubric": self.rubric}
            texts = [self._framed(model, fill(self.template, _checked(case), **more)) for case in cases]
            rows.append(verdict_probability(model, texts, yes=[self.yes], no=[self.no]))
        scores = np.mean(rows, axis=0)
        for position, score in enumerate(scores):
            if keep is not None:
                keep(position, float(score))
        return [float(score) for score in scores], {}

    def _framed(self, model: Scores, text: str) -> str:
        """Returns the text as the model's chat template frames a user's message, where it has one."""
        tokenizer: Any = getattr(model.tokenizer, "hf", None)
        if self.chat is False or getattr(tokenizer, "chat_template", None) is None:
            if self.chat:
                raise ConfigError(f"model {model.name!r} has no chat template; leave chat out")
            return text
        message = [{"role": "user", "content": text}]
        return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    def close(self) -> None:
        """Does nothing: models are shared by the whole process."""


def _checked(case: Case) -> Case:
    """Returns the case without bytes that no tokenizer knows (a cut multi-byte character)."""
    return replace(case, answer=case.answer.replace("\ufffd", ""))


class ModelJudge:
    """Judges answers of a growing tree: the probability that a model says yes after the filled-in template."""

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
