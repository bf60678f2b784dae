"""The back end `remote`: a language model behind an OpenAI-compatible server, as a `LanguageModel`."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from treegym.errors import BackendError, ConfigError
from treegym.models.base import (
    Embeds,
    Sampling,
    SamplingSettings,
    TextTokenizer,
    TokenIds,
    check_contexts,
    through_stop,
)
from treegym.models.batched_trees import score_trees_in_batches, score_trees_partly
from treegym.models.local.decoding import score_by_steps, whole_rows
from treegym.models.local.logprob_states import logprob_states
from treegym.models.remote.answers import UNKNOWN, Choice, MalformedAnswer, field
from treegym.models.remote.dialect import Dialect
from treegym.models.remote.endpoint import Endpoint, Refused
from treegym.models.remote.journal import Journal
from treegym.models.remote.link import Link
from treegym.models.remote.pacing import Usage
from treegym.models.tree_scores import Branches, TreeScores

__all__ = ["RemoteModel"]

EMBEDDED = 256  # contexts in one request for embeddings
logger = logging.getLogger(__name__)


class RemoteModel:
    """Fits `LanguageModel`. Nothing is asked before the first use; what the server can do is in `dialect`."""

    def __init__(
        self,
        endpoint: Endpoint | str,
        *,
        tokenizer: TextTokenizer,
        model: str | None = None,
        name: str | None = None,
        prompts_per_request: int = 32,
        tolerance: float = 0.05,
        journal: Journal | None = None,
        embedder: Embeds | None = None,
        **settings: Any,
    ) -> None:
        """Prepares the model.

        Args:
            endpoint: an `Endpoint` to share, or a base URL; `settings` are then the `Endpoint`'s keyword arguments.
            tokenizer: the tokenizer of the served model.
            model: its name on the server; without it the server must serve exactly one.
            name: what reports and provenance call it; default the server's name for it.
            prompts_per_request: most prompts in one request, where the server takes several.
            tolerance: how far log-probabilities of the same model may drift between answers (rounding, batching).
            journal: where finished answers are kept, so that an interrupted batch is not asked for twice.
            embedder: a local model that gives hidden states in the served one's place (the same weights, usually).
        """
        if settings and not isinstance(endpoint, str):
            raise ConfigError(f"pass {', '.join(settings)} to the Endpoint, not beside it")
        if prompts_per_request < 1:
            raise ConfigError(f"prompts_per_request must be at least 1, not {prompts_per_request}")
        self.endpoint = Endpoint(endpoint, **settings) if isinstance(endpoint, str) else endpoint
        self.tokenizer = tokenizer
        self._name, self._embedder, self._size = name, embedder, tokenizer.vocab_size
        self._link = Link(
            self.endpoint,
            tokenizer,
            wanted=model,
            batch=prompts_per_request,
            tolerance=tolerance,
            journal=journal,
        )
        self._fingerprint: str | None = None
        self._embeds = True  # until the server says otherwise
        self._told_few = False

    # ---------------------------------------------------------------- who is there

    @property
    def name(self) -> str:
        """Returns what reports and provenance call the model."""
        return self._name if self._name is not None else self._link.connected()[0]

    @name.setter
    def name(self, value: str) -> None:
        self._name = value

    @property
    def dialect(self) -> Dialect:
        """Returns what the server was found to understand."""
        return self._link.connected()[1]

    @property
    def context_length(self) -> int | None:
        """Returns how many tokens a text may have, None where the server does not say."""
        self._link.connected()
        return self._link.context_length

    @property
    def told_logprobs(self) -> int:
        """Returns how many of the likeliest tokens the server tells per position."""
        return self.dialect.logprobs

    @property
    def scores_prompts(self) -> bool:
        """Whether the server tells the log-probabilities of given texts, however few it tells of the likeliest."""
        return self.dialect.echo >= 0 and self.dialect.ids

    @property
    def usage(self) -> Usage:
        """Returns the running totals of requests, tokens and money."""
        return self.endpoint.usage

    def renewed(self) -> None:
        """Holds on to the model that is behind the URL now: for after its weights were updated on purpose."""
        self._link.renewed()
        self._fingerprint = None

    def fingerprint(self) -> str:
        model, _ = self._link.connected()
        if self._link.told is not None:
            return self._link.told
        if self._fingerprint is None:
            said = self.generate(self._link.probes, max_new_tokens=8)
            rules = repr((model, self.tokenizer.fingerprint(), said))
            self._fingerprint = hashlib.sha256(rules.encode()).hexdigest()
        return self._fingerprint

    # ---------------------------------------------------------------- the protocol

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        return whole_rows(*self.top_logprobs(contexts, self._size))

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, self._size)
        if k > self.dialect.logprobs:
            raise BackendError(
                f"{self.name} was asked for {k} log-probabilities per position and gives {self.dialect.logprobs}; "
                "raise the server's limit (vLLM: --max-logprobs -1), or grow by mode 'answers'"
            )
        return self._link.verified(self._link.top(contexts, k))

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        check_contexts(contexts)
        if not self.scores_prompts:
            return self._link.verified(self._score_by_steps(contexts, continuations))
        joined = [[*c, *t] for c, t in zip(contexts, continuations, strict=True)]
        asked = [row for row, t in enumerate(continuations) if len(t)]
        generated = self.dialect.echo

        def read(choices: list[Choice]) -> list[list[float | None]]:
            return [choice.logprobs[: len(choice.logprobs) - generated] for choice in choices]

        fields = {"max_tokens": generated, "temperature": 0.0, "logprobs": 0, "echo": True}
        lengths = {row: len(joined[row]) for row in asked}
        told = self._link.ask([joined[row] for row in asked], fields, read, lengths=[lengths[row] for row in asked])
        scores = [np.zeros(len(t), np.float32) for t in continuations]
        for row, values in zip(asked, told, strict=True):
            scores[row] = np.array(values[len(contexts[row]) :], np.float32)  # [T]
        return self._link.verified(scores)

    def _score_by_steps(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        """Scores token by token among the likeliest ones, for servers that do not score prompts."""
        if self.dialect.logprobs < self._size:
            raise BackendError(
                f"{self.name} neither scores prompts (echo) nor tells all log-probabilities; use it "
                "as a teacher that answers"
            )
        return score_by_steps(self.next_logprobs, contexts, continuations)

    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        asked = Sampling(**settings)
        stops = asked.stops(self.tokenizer)
        fields: dict[str, Any] = {"max_tokens": asked.max_new_tokens, "temperature": float(asked.temperature)}
        if self.dialect.extras:
            fields["stop_token_ids"] = stops
        if self.dialect.logprobs:
            fields["logprobs"] = 1  # tells the tokens, where the server does not list them

        def read(choices: list[Choice]) -> list[list[int]]:
            return [self._said(choice, stops, asked.max_new_tokens) for choice in choices]

        if asked.greedy:
            return self._link.verified(self._link.ask(contexts, fields, read))
        # One prompt per request: prompts that share a request share its seed, and equal prompts would answer alike.
        extra = [{"seed": own} for own in asked.row_seeds(len(contexts))]
        return self._link.verified(self._link.ask(contexts, fields, read, batch=1, extra=extra))

    def _said(self, choice: Choice, stops: list[int], limit: int) -> list[int]:
        """Returns the tokens of a continuation, up to and with its stop token."""
        ids = choice.token_ids
        if ids is None and choice.tokens and UNKNOWN not in choice.tokens:
            ids = choice.tokens
        if ids is None:
            ids = self.tokenizer.encode(choice.text)
        if (cut := through_stop(ids, stops)) is not None:
            return cut
        if choice.finish_reason == "stop" and len(ids) < limit:
            return [*ids, stops[0]]  # servers may stop at the token without listing it
        if len(ids) > limit:
            raise MalformedAnswer(f"{limit} tokens were asked for and {len(ids)} came")
        return ids

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        """Returns ``[B, D] float32``: the embedder's, else the server's, else distributions in their place."""
        if self._embedder is not None:
            return self._embedder.embed(contexts)
        model, dialect = self._link.connected()
        if self._embeds:
            try:
                parts = [
                    self._embeddings(model, contexts[start : start + EMBEDDED])
                    for start in range(0, len(contexts), EMBEDDED)
                ]
                return self._link.verified(np.concatenate(parts))
            except Refused:
                self._embeds = False
        if dialect.logprobs < self._size:
            raise BackendError(
                f"{self.name} gives neither embeddings nor all log-probabilities; pass embedder=, a local model"
            )
        logger.info("%s gives no hidden states; its log-probabilities, centred, are used instead", self.name)
        return logprob_states(self.next_logprobs(contexts))

    def _embeddings(self, model: str, contexts: Sequence[TokenIds]) -> np.ndarray:
        def read(answer: dict[str, Any]) -> np.ndarray:
            rows = [field(entry, "embedding", list) for entry in field(answer, "data", list)]
            try:
                vectors = np.array(rows, np.float32)
            except (ValueError, TypeError, OverflowError):
                raise MalformedAnswer("the embeddings are not numbers of one length") from None
            if vectors.ndim != 2 or len(vectors) != len(contexts) or not np.isfinite(vectors).all():
                raise MalformedAnswer(f"the embeddings of {len(contexts)} contexts have the shape {vectors.shape}")
            return vectors

        body = {"model": model, "input": [[int(i) for i in context] for context in contexts]}
        return self.endpoint.post("embeddings", body, check=read)

    def score_trees(
        self, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
    ) -> list[TreeScores]:
        """Scores whole trees in large batches; with few log-probabilities, as far as they go, and says so once."""
        given = self.dialect.logprobs
        needs_all = hidden or worst > 0 or not self.scores_prompts
        if given >= self._size and needs_all:
            return score_trees_in_batches(self, trees, best=best, worst=worst, hidden=hidden)
        if hidden:
            raise BackendError(
                f"{self.name} gives {given} log-probabilities per position and the primary needs all; serve it "
                "with more (vLLM: --max-logprobs -1), or describe contexts by an embedder"
            )
        if (worst or best > given) and not self._told_few:
            self._told_few = True
            warnings.warn(
                f"{self.name} gives {given} log-probabilities per position: as a teacher it offers answers and at most "
                "that many likely tokens, and no unlikely ones",
                stacklevel=2,
            )
        return score_trees_partly(self, trees, best=best, given=given, scores_prompts=self.scores_prompts)
