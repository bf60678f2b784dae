"""LMGT: a language model's advice as a shift of the reward, -1, 0 or +1 per step, annealed away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.rewards.base import Request, Term
from treegym.rewards.local import local_model
from treegym.rewards.terms.likelihood import logprob_column
from treegym.tree.token_tree import TokenTree

__all__ = ["LMGT", "advice"]


def advice(probability: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """Returns +1 where the guide's probability is at least `high`, -1 where at most `low`, 0 between or unknown."""
    known = np.nan_to_num(probability, nan=0.5 * (low + high))
    return np.where(known >= high, 1.0, np.where(known <= low, -1.0, 0.0))


class LMGT(Term):
    """The guide's advice about each step (after LMGT, arXiv 2409.04744: the model shifts the environment's reward).

    The shift is not potential-based, so it can move the optimum: it is annealed to zero by default, and evaluations
    report the reward without it (`RewardTable.raw`).

    Args:
        guide: ``"teacher:NAME"`` or ``"primary"`` (stored log-probabilities), else a model to load.
        low: a token at most this likely is advised against.
        high: a token at least this likely is advised.
    """

    kind = "lmgt"
    deployable = True
    scope = "step"
    shaping = True
    bounds = (-1.0, 1.0)

    def __init__(
        self,
        *,
        guide: str,
        low: float = 0.05,
        high: float = 0.5,
        anneal: Sequence[float] | None = (0.0, 1.0),
        **common: Any,
    ) -> None:
        super().__init__(anneal=anneal, **common)
        if not 0.0 <= low < high <= 1.0:
            raise ConfigError(f"reward term {self.name!r}: low {low} and high {high} must rise within [0, 1]")
        self.guide, self.low, self.high = guide, low, high
        self._stored = guide == "primary" or guide.startswith("teacher:")
        self.lazy = not self._stored

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        if self._stored:
            logprob = logprob_column(source, self.guide, self.name)[asked.nodes].astype(np.float64)
        else:
            logprob = self._ask(source, asked.nodes)
        return advice(np.exp(logprob), low=self.low, high=self.high)

    def _ask(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        """Returns the guide's log-probability of each step's text after the text before it."""
        guide = local_model(self.guide)
        parent = np.asarray(source.parent)
        depth = np.asarray(source.depth)
        roots = np.asarray(source.root_of(nodes))
        eos = source.header.get("eos_id")
        contexts, steps = [], []
        for node, root in zip(nodes, roots, strict=True):
            above = int(parent[node])
            before = source.text(above) if depth[above] else ""
            contexts.append(guide.tokenizer.encode(source.prompts[int(root)] + before) or [guide.tokenizer.eos_id])
            ended = source.token[node] == eos
            step = source.text(int(node)).removeprefix(before)
            steps.append([guide.tokenizer.eos_id] if ended else guide.tokenizer.encode(step))
        return np.array([float(np.sum(scores)) for scores in guide.score(contexts, steps)])
