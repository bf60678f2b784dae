"""The learned reward model as a term."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError, require
from treegym.rewards.base import Request, Term
from treegym.tree.token_tree import TokenTree

__all__ = ["LearnedReward"]


class LearnedReward(Term):
    """The score that a trained reward model gives a finished answer.

    Args:
        model: a folder written by ``treegym train-reward``.
        form: ``probability``: sigmoid of the centred, scaled score, in [0, 1]; ``score``: that score itself.
    """

    kind = "reward_model"
    deployable = True
    lazy = True

    def __init__(self, *, model: str, form: str = "probability", **common: Any) -> None:
        super().__init__(**common)
        if form not in ("probability", "score"):
            raise ConfigError(f"reward term {self.name!r}: form is 'probability' or 'score', not {form!r}")
        self.model, self.form = model, form
        if form == "probability":
            self.bounds = (0.0, 1.0)
        self._loaded: Any = None

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        if self._loaded is None:
            require("torch", extra="models", purpose="a learned reward model")
            from treegym.rewards.learned.bradley_terry import RewardModel

            self._loaded = RewardModel.load(self.model)
        prompts = source.prompts
        asked_about = [prompts[int(root)] for root in np.asarray(source.root_of(asked.nodes))]
        scores = self._loaded.scores(asked_about, [source.text(int(node)) for node in asked.nodes])
        return scores if self.form == "score" else 1.0 / (1.0 + np.exp(-scores))
