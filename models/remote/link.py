"""The link to a served model: finding out what is there, asking in batches, and noticing when it is another model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from treegym.errors import ConfigError
from treegym.models.base import TextTokenizer, TokenIds, check_contexts
from treegym.models.remote.answers import Choice, MalformedAnswer, Vocabulary, read_choices
from treegym.models.remote.dialect import (
    Dialect,
    DifferentModel,
    detect,
    difference,
    model_cards,
    probe_contexts,
    served_model,
)
from treegym.models.remote.endpoint import Endpoint
from treegym.models.remote.journal import Journal

__all__ = ["Link"]

Value = TypeVar("Value")
PROBE_K = 5


class Link:
    """Speaks with one model on one server. Nothing is asked before the first use."""

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: TextTokenizer,
        *,
        wanted: str | None,
        batch: int,
        tolerance: float,
        journal: Journal | None,
    ) -> None:
        """Prepares the link; the arguments are those of `RemoteModel`."""
        self.endpoint = endpoint
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary(tokenizer)
        self.probes = probe_contexts(tokenizer)
        self.told: str | None = None  # the fingerprint by the server's own word
        self.context_length: int | None = None  # tokens of a text, likewise
        self._wanted, self._batch, self._tolerance, self._journal = wanted, batch, tolerance, journal
        self._lock = threading.RLock()
        self._model: str | None = None
        self._dialect: Dialect | None = None
        self._behaviour: tuple[np.ndarray, np.ndarray] | None = None

    # ---------------------------------------------------------------- who is there

    def connected(self) -> tuple[str, Dialect]:
        """Returns the model's name on the server and what the server understands."""
        with self._lock:
            if self._model is None or self._dialect is None:
                model = served_model(self.endpoint, self._wanted)
                card = model_cards(self.endpoint).get(model, {})
                theirs = card.get("tokenizer_fingerprint")
                if isinstance(theirs, str) and theirs != self.tokenizer.fingerprint():
                    raise ConfigError(
                        f"{self.endpoint.base_url} serves {model!r} with another tokenizer than the given one"
                    )
                length = card.get("max_model_len")
                self.context_length = length if type(length) is int and length > 0 else None
                told = card.get("fingerprint")
                self.told = told if isinstance(told, str) and told else None
                dialect = detect(self.endpoint, model, self.tokenizer, self.probes[:2])
                self._model, self._dialect = model, dialect
                if self.told is None and dialect.logprobs:
                    self._behaviour = self._behave()
            return self._model, self._dialect

    def _behave(self) -> tuple[np.ndarray, np.ndarray]:
        return self.top(self.probes, min(PROBE_K, self.vocabulary.size, self.connected()[1].logprobs))

    def verified(self, value: Value) -> Value:
        """Returns `value` once the model that gave it is known to be the one we began with."""
        if self._behaviour is not None:
            changed = difference(self._behaviour, self._behave(), self.probes)
            if changed > self._tolerance:
                raise self._different(f"log-probabilities changed by {changed:.3g}")
        return value

    def _same(self, answer: dict[str, Any]) -> None:
        """Raises when an answer carries another fingerprint than the server's list of models did."""
        told = answer.get("system_fingerprint")
        if self.told is not None and not isinstance(told, str):
            raise MalformedAnswer("the answer does not say which model it is from, as this server's answers do")
        if self.told is not None and told != self.told:
            raise self._different(f"its fingerprint is {told!r:.40}")

    def _different(self, how: str) -> DifferentModel:
        return DifferentModel(
            f"another model answers as {self._model!r} at {self.endpoint.base_url}: {how}. "
            "Point the URL back to the first model, or call renewed() if the change was meant"
        )

    def renewed(self) -> None:
        """Forgets who was there."""
        with self._lock:
            self._model = self._dialect = self.told = self._behaviour = None

    # ---------------------------------------------------------------- asking

    def top(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k likeliest next tokens ``[B, k] int32`` and their log-probabilities ``[B, k] float32``."""

        def read(choices: list[Choice]) -> list[list[tuple[int, float]]]:
            return [_best(choice, k, self.vocabulary.size) for choice in choices]

        rows = self.ask(contexts, {"max_tokens": 1, "temperature": 0.0, "logprobs": k}, read)
        ids = np.array([[token for token, _ in row] for row in rows], np.int32).reshape(len(rows), k)
        values = np.array([[value for _, value in row] for row in rows], np.float32).reshape(len(rows), k)
        return ids, values

    def ask(
        self,
        contexts: Sequence[TokenIds],
        fields: dict[str, Any],
        read: Callable[[list[Choice]], list[Any]],
        *,
        batch: int | None = None,
        extra: list[dict[str, Any]] | None = None,
        lengths: list[int] | None = None,
    ) -> list[Any]:
        """Asks for all contexts, many at a time, and returns what `read` makes of each one's choice, in order."""
        model, dialect = self.connected()
        check_contexts(contexts)
        size = (batch or self._batch) if dialect.batch else 1
        starts = list(range(0, len(contexts), size))

        async def one(start: int) -> list[Any]:
            rows = list(contexts[start : start + size])
            special = extra[start] if extra is not None else {}
            body = {"model": model, **dialect.body(rows, self.tokenizer, **fields, **special)}

            def check(answer: dict[str, Any]) -> list[Any]:
                self._same(answer)
                choices = read_choices(answer, len(rows), self.vocabulary)
                if lengths is not None:
                    _check_lengths(choices, lengths[start : start + size], fields["max_tokens"])
                values = read(choices)
                if self._journal is not None:
                    self._journal.put(self._kind(), body, {"choices": answer["choices"]})
                return values

            if self._journal is not None and (kept := self._journal.get(self._kind(), body)) is not None:
                return read(read_choices(kept, len(rows), self.vocabulary))
            return await self.endpoint.ask(
                "POST",
                "completions",
                body,
                check=check,
                about_prompt=sum(len(row) for row in rows),
                about_completion=len(rows) * fields["max_tokens"],
            )

        return [value for part in self.endpoint.map(one, starts) for value in part]

    def _kind(self) -> str:
        return f"completions {self.endpoint.base_url} {self.told}"


def _check_lengths(choices: list[Choice], lengths: list[int], generated: int) -> None:
    """Raises unless every prompt was echoed with one log-probability per token (after the first)."""
    for choice, length in zip(choices, lengths, strict=True):
        if len(choice.logprobs) != length + generated or None in choice.logprobs[1:]:
            raise MalformedAnswer(
                f"a prompt of {length} tokens came back with {len(choice.logprobs)} log-probabilities"
            )


def _best(choice: Choice, k: int, size: int) -> list[tuple[int, float]]:
    """Returns the k likeliest tokens of the first position, best first, ties to the smaller id."""
    if not choice.tops or len(choice.tops[0]) < k:
        given = len(choice.tops[0]) if choice.tops else 0
        raise MalformedAnswer(f"{k} log-probabilities were asked for and {given} came that this tokenizer knows")
    best = sorted(choice.tops[0].items(), key=lambda item: (-item[1], item[0]))[:k]
    if k == size:
        total = float(np.exp(np.array([value for _, value in best], np.float64)).sum())
        if not 0.98 < total < 1.02:
            raise MalformedAnswer(f"the probabilities of the whole vocabulary add up to {total:.4f}, not 1")
    return best
