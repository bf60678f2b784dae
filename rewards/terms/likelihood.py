"""Likelihood and perplexity of a path under the primary model, a teacher, or any language model.

Letters: B nodes asked, T tokens of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from treegym.errors import ConfigError, suggest
from treegym.models.base import context_length
from treegym.rewards.base import Request, Term
from treegym.rewards.local import local_model
from treegym.tree.paths import ancestors, path_sums
from treegym.tree.token_tree import TokenTree

__all__ = ["LogLikelihood", "Perplexity", "logprob_column", "perplexity", "sliding_window_logprobs"]

Scorer = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[np.ndarray]]  # contexts, continuations


def logprob_column(source: TokenTree, of: str, term: str) -> np.ndarray:
    """Returns log-probabilities ``[N]`` of the primary (``"primary"``) or of a teacher (``"teacher:NAME"``)."""
    if of == "primary":
        return np.asarray(source.prior)
    names = list(source.header.get("teachers", ()))
    name = of.removeprefix("teacher:")
    if name not in names:
        known = ["primary", *(f"teacher:{n}" for n in names)]
        raise ConfigError(f"reward term {term!r}: this tree knows nothing of {of!r}.{suggest(of, known)}")
    return np.asarray(source.teacher_logp)[:, names.index(name)]


class LogLikelihood(Term):
    """The log-probability of each token after its parent; the return is the log-likelihood of the text.

    Args:
        of: whose: ``"primary"`` or ``"teacher:NAME"``.
        floor: lowest value of one step; a teacher without an opinion counts as the floor.
    """

    kind = "loglikelihood"
    deployable = True
    scope = "step"

    def __init__(self, *, of: str = "primary", floor: float = -20.0, **common: Any) -> None:
        super().__init__(**common)
        self.of, self.floor = of, float(floor)

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        logprob = logprob_column(source, self.of, self.name)[asked.nodes].astype(np.float64)
        return np.where(np.isnan(logprob), self.floor, np.clip(logprob, self.floor, 0.0))


class Perplexity(Term):
    """Perplexity of the whole text at its end, exp(-mean log p(token)); or its logarithm.

    Without a model the tree's stored log-probabilities serve: each token was scored after all before it. With a model
    the text is scored after its prompt, in sliding windows when it is longer than the window.

    Args:
        of: whose stored log-probabilities: ``"primary"`` or ``"teacher:NAME"``.
        model: a model to score with instead (bundled name, directory or hub name).
        window: most tokens, prompt included, that the model sees at once; its own positions, where it has fewer.
        stride: tokens by which the window moves; each token is scored once, with as much context as then fits.
        form: ``"perplexity"`` or ``"log"`` (its natural logarithm: milder, and the mean surprise per token).
    """

    kind = "perplexity"
    deployable = True
    at_truncation = True

    def __init__(
        self,
        *,
        of: str = "primary",
        model: str | None = None,
        window: int = 1024,
        stride: int = 512,
        form: str = "perplexity",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if form not in ("perplexity", "log"):
            raise ConfigError(f"reward term {self.name!r}: form is 'perplexity' or 'log', not {form!r}")
        _check_window(window, stride)
        self.of, self.model, self.window, self.stride, self.form = of, model, window, stride, form
        self.lazy = model is not None

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        if self.model is None:
            mean = self._stored_mean(source, asked.nodes)
        else:
            scorer = local_model(self.model)
            window = min(self.window, context_length(scorer) or self.window)
            stride = min(self.stride, max(1, window // 2)) if window < self.window else self.stride
            roots = np.asarray(source.root_of(asked.nodes))
            prompts = [scorer.tokenizer.encode(source.prompts[int(r)]) or [scorer.tokenizer.eos_id] for r in roots]
            texts = [scorer.tokenizer.encode(source.text(int(n))) for n in asked.nodes]
            mean = np.array(
                [
                    float(np.mean(sliding_window_logprobs(scorer.score, p, t, window=window, stride=stride)))
                    if t
                    else 0.0
                    for p, t in zip(prompts, texts, strict=True)
                ]
            )
        return -mean if self.form == "log" else np.exp(-mean)

    def _stored_mean(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        column = logprob_column(source, self.of, self.name)
        above = ancestors(source, nodes)
        sums = path_sums(source, above, column[above].astype(np.float64))
        return sums[np.searchsorted(above, nodes)] / np.maximum(np.asarray(source.depth)[nodes], 1)


def perplexity(logprobs: np.ndarray) -> float:
    """Returns exp(-1/T sum_t log p(x_t | x_<t)), the textbook value, of natural log-probabilities ``[T]``."""
    if not len(logprobs):
        raise ConfigError("perplexity of no tokens; at least one log-probability was expected")
    return float(np.exp(-np.mean(np.asarray(logprobs, dtype=np.float64))))


def sliding_window_logprobs(
    score: Scorer, prompt: Sequence[int], tokens: Sequence[int], *, window: int, stride: int
) -> np.ndarray:
    """Returns log-probabilities ``[T]`` of `tokens` after `prompt`, scored in overlapping windows.

    A window holds at most `window` tokens and moves by `stride`; each token is scored exactly once, in the first window
    that holds it. With a window as long as the text this is the exact chain rule; with stride 1 every token has the
    longest context that fits. The prompt itself is context, never scored.
    """
    _check_window(window, stride)
    whole = [*prompt, *tokens]
    if not prompt:
        raise ConfigError("perplexity needs a context for the first token; give a prompt of at least one token")
    parts = []
    scored = len(prompt)  # everything before this position is context or was scored already
    end = min(window, len(whole))
    while end <= scored < len(whole):  # the prompt alone fills the window: move on to the first token
        end = min(end + stride, len(whole))
    while scored < len(whole):
        begin = max(0, end - window)  # below `scored`, as stride < window
        parts.append(np.asarray(score([whole[begin:scored]], [whole[scored:end]])[0], dtype=np.float64))
        scored, end = end, min(end + stride, len(whole))
    return np.concatenate(parts) if parts else np.zeros(0)


def _check_window(window: int, stride: int) -> None:
    if not 1 <= stride < window:
        raise ConfigError(f"window is {window} and stride {stride}; 1 <= stride < window was expected")
