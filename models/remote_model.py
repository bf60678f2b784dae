"""The back end `remote`: a language model behind an OpenAI-compatible server, as a `LanguageModel`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from treegym.errors import BackendError, ConfigError
from treegym.models.base import TextTokenizer, TokenIds
from treegym.models.http_dialect import Dialect, detect
from treegym.models.http_endpoint import Endpoint, Refused
from treegym.models.http_identity import DifferentModel, difference, probe_contexts
from treegym.models.http_journal import Journal
from treegym.models.http_json import MalformedAnswer, field
from treegym.models.http_models import model_cards, served_model
from treegym.models.http_tokens import UNKNOWN, Choice, Vocabulary, read_choices

__all__ = ["RemoteModel"]

Value = TypeVar("Value")
PROBE_K = 5


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
        """
        if settings and not isinstance(endpoint, str):
            raise ConfigError(f"pass {', '.join(settings)} to the Endpoint, not beside it")
        if prompts_per_request < 1:
            raise ConfigError(f"prompts_per_request must be at least 1, not {prompts_per_request}")
        self.endpoint = Endpoint(endpoint, **settings) if isinstance(endpoint, str) else endpoint
        self.tokenizer = tokenizer
        self._wanted, self._name, self._journal = model, name, journal
        self._batch, self._tolerance = prompts_per_request, tolerance
        self._vocabulary = Vocabulary(tokenizer)
        self._probes = probe_contexts(tokenizer)
        self._lock = threading.RLock()
        self._model: str | None = None
        self._dialect: Dialect | None = None
        self._told: str | None = None  # the fingerprint by the server's own word
        self._fingerprint: str | None = None
        self._behaviour: tuple[np.ndarray, np.ndarray] | None = None

    # ---------------------------------------------------------------- who is there

    @property
    def name(self) -> str:
        return self._name if self._name is not None else self._connected()[0]

    @property
    def dialect(self) -> Dialect:
        """Returns what the server was found to understand."""
        return self._connected()[1]

    @property
    def usage(self) -> Any:
        """Returns the running totals of requests, tokens and money."""
        return self.endpoint.usage

    def _connected(self) -> tuple[str, Dialect]:
        with self._lock:
            if self._model is None or self._dialect is None:
                model = served_model(self.endpoint, self._wanted)
                card = model_cards(self.endpoint).get(model, {})
                theirs = card.get("tokenizer_fingerprint")
                if isinstance(theirs, str) and theirs != self.tokenizer.fingerprint():
                    raise ConfigError(
                        f"{self.endpoint.base_url} serves {model!r} with another tokenizer than the given one"
                    )
                told = card.get("fingerprint")
                self._told = told if isinstance(told, str) and told else None
                self._dialect = detect(self.endpoint, model, self.tokenizer, self._probes[:2])
                self._model = model
                if self._told is None and self._dialect.logprobs:
                    self._behaviour = self._behave()
            return self._model, self._dialect

    def _behave(self) -> tuple[np.ndarray, np.ndarray]:
        return self._top(self._probes, min(PROBE_K, self._vocabulary.size, self._connected_logprobs()))

    def _connected_logprobs(self) -> int:
        assert self._dialect is not None
        return self._dialect.logprobs

    def _verified(self, value: Value) -> Value:
        """Returns `value` once the model that gave it is known to be the one we began with."""
        if self._behaviour is not None:
            changed = difference(self._behaviour, self._behave(), self._probes)
            if changed > self._tolerance:
                raise DifferentModel(
                    f"another model answers as {self.name!r} at {self.endpoint.base_url}: log-probabilities changed by "
                    f"{changed:.3g}. Point the URL back to the first model, or call renewed() if the change was meant"
                )
        return value

    def renewed(self) -> None:
        """Holds on to the model that is behind the URL now: for after its weights were updated on purpose."""
        with self._lock:
            self._model = self._dialect = self._told = self._fingerprint = self._behaviour = None

    def fingerprint(self) -> str:
        self._connected()
        if self._told is not None:
            return self._told
        if self._fingerprint is None:
            said = self.generate(self._probes, max_new_tokens=8)
            rules = repr((self._model, self.tokenizer.fingerprint(), said))
            self._fingerprint = hashlib.sha256(rules.encode()).hexdigest()
        return self._fingerprint

    # ---------------------------------------------------------------- the protocol

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        size = self._vocabulary.size
        ids, values = self.top_logprobs(contexts, size)
        full = np.empty((len(contexts), size), np.float32)  # [B, V]
        np.put_along_axis(full, ids.astype(np.int64), values, axis=1)
        return full

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, self._vocabulary.size)
        if k > self.dialect.logprobs:
            raise BackendError(
                f"{self.name} was asked for {k} log-probabilities per position and gives {self.dialect.logprobs}; "
                "raise the server's limit (vLLM: --max-logprobs -1), or grow by mode 'answers'"
            )
        return self._verified(self._top(contexts, k))

    def _top(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        def read(choices: list[Choice]) -> list[list[tuple[int, float]]]:
            return [_best(choice, k, self._vocabulary.size) for choice in choices]

        fields = {"max_tokens": 1, "temperature": 0.0, "logprobs": k}
        rows = self._map(contexts, fields, read)
        ids = np.array([[token for token, _ in row] for row in rows], np.int32).reshape(len(rows), k)  # [B, k]
        values = np.array([[value for _, value in row] for row in rows], np.float32).reshape(len(rows), k)
        return ids, values

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        if any(not len(context) for context in contexts):
            raise ConfigError("a context is empty; a model needs at least one token to go on from")
        if self.dialect.echo < 0 or not self.dialect.ids:
            return self._verified(self._score_by_steps(contexts, continuations))
        joined = [[*c, *t] for c, t in zip(contexts, continuations, strict=True)]
        asked = [row for row, t in enumerate(continuations) if len(t)]
        generated = self.dialect.echo

        def read(choices: list[Choice]) -> list[list[float | None]]:
            return [choice.logprobs[: len(choice.logprobs) - generated] for choice in choices]

        fields = {"max_tokens": generated, "temperature": 0.0, "logprobs": 0, "echo": True}
        lengths = {row: len(joined[row]) for row in asked}
        told = self._map([joined[row] for row in asked], fields, read, lengths=[lengths[row] for row in asked])
        scores = [np.zeros(len(t), np.float32) for t in continuations]
        for row, values in zip(asked, told, strict=True):
            scores[row] = np.array(values[len(contexts[row]) :], np.float32)  # [T]
        return self._verified(scores)

    def _score_by_steps(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        """Scores token by token among the likeliest ones, for servers that do not score prompts."""
        if self.dialect.logprobs < self._vocabulary.size:
            raise BackendError(
                f"{self.name} neither scores prompts (echo) nor tells all log-probabilities; use it "
                "as a teacher that answers"
            )
        prefixes = [[*c, *t[:cut]] for c, t in zip(contexts, continuations, strict=True) for cut in range(len(t))]
        logprobs = self.next_logprobs(prefixes)  # [sum of T, V]
        targets = [token for t in continuations for token in t]
        values = logprobs[np.arange(len(targets)), np.asarray(targets, np.int64)]
        return np.split(values, np.cumsum([len(t) for t in continuations])[:-1])

    def generate(
        self,
        contexts: Sequence[TokenIds],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop_ids: TokenIds | None = None,
    ) -> list[list[int]]:
        stops = [self.tokenizer.eos_id] if stop_ids is None else [int(i) for i in stop_ids]
        fields: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": float(temperature)}
        if self.dialect.extras:
            fields["stop_token_ids"] = stops
        if self.dialect.logprobs:
            fields["logprobs"] = 1  # tells the tokens, where the server does not list them

        def read(choices: list[Choice]) -> list[list[int]]:
            return [self._said(choice, stops, max_new_tokens) for choice in choices]

        if temperature <= 0.0:
            return self._verified(self._map(contexts, fields, read))
        # One prompt a request: prompts that share a request share its seed, and equal prompts would answer alike.
        seeds = np.random.SeedSequence(seed).generate_state(max(1, len(contexts))) % 2**31
        extra = [{"seed": int(row_seed)} for row_seed in seeds[: len(contexts)]]
        return self._verified(self._map(contexts, fields, read, batch=1, extra=extra))

    def _said(self, choice: Choice, stops: list[int], limit: int) -> list[int]:
        """Returns the tokens of a continuation, up to and with its stop token."""
        ids = choice.token_ids
        if ids is None and choice.tokens and UNKNOWN not in choice.tokens:
            ids = choice.tokens
        if ids is None:
            ids = self.tokenizer.encode(choice.text)
        cut = next((place + 1 for place, token in enumerate(ids) if token in stops), None)
        if cut is not None:
            return ids[:cut]
        if choice.finish_reason == "stop" and len(ids) < limit:
            return [*ids, stops[0]]  # servers may stop at the token without listing it
        if len(ids) > limit:
            raise MalformedAnswer(f"{limit} tokens were asked for and {len(ids)} came")
        return ids

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        """Returns the server's embeddings ``[B, D] float32``, where it has such an endpoint."""
        model = self._connected()[0]
        body = {"model": model, "input": [[int(i) for i in context] for context in contexts]}
        try:
            answer = self.endpoint.post("embeddings", body)
        except Refused as error:
            raise BackendError(f"{self.name} gives no embeddings ({error}); use a local model for them") from None
        rows = [field(entry, "embedding", list) for entry in field(answer, "data", list)]
        try:
            vectors = np.array(rows, np.float32)
        except (ValueError, TypeError):
            raise MalformedAnswer(f"{self.name} sent embeddings that are not numbers of one length") from None
        if vectors.ndim != 2 or len(vectors) != len(contexts) or not np.isfinite(vectors).all():
            raise MalformedAnswer(f"{self.name} sent embeddings of shape {vectors.shape} for {len(contexts)} contexts")
        return vectors

    # ---------------------------------------------------------------- asking

    def _map(
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
        model, dialect = self._connected()
        if any(not len(context) for context in contexts):
            raise ConfigError("a context is empty; a model needs at least one token to go on from")
        size = (batch or self._batch) if dialect.batch else 1
        starts = list(range(0, len(contexts), size))

        async def ask(start: int) -> list[Any]:
            rows = list(contexts[start : start + size])
            special = extra[start] if extra is not None else {}
            body = {"model": model, **dialect.body(rows, self.tokenizer, **fields, **special)}

            def check(answer: dict[str, Any]) -> list[Any]:
                self._same(answer)
                choices = read_choices(answer, len(rows), self._vocabulary)
                if lengths is not None:
                    _check_lengths(choices, lengths[start : start + size], fields["max_tokens"])
                values = read(choices)
                if self._journal is not None:
                    self._journal.put(self._kind(), body, {"choices": answer["choices"]})
                return values

            if self._journal is not None and (kept := self._journal.get(self._kind(), body)) is not None:
                return read(read_choices(kept, len(rows), self._vocabulary))
            return await self.endpoint.ask(
                "POST",
                "completions",
                body,
                check=check,
                about_prompt=sum(len(row) for row in rows),
                about_completion=len(rows) * fields["max_tokens"],
            )

        return [value for part in self.endpoint.map(ask, starts) for value in part]

    def _kind(self) -> str:
        return f"completions {self.endpoint.base_url} {self._told}"

    def _same(self, answer: dict[str, Any]) -> None:
        """Raises when an answer carries another fingerprint than the server's list of models did."""
        told = answer.get("system_fingerprint")
        if self._told is not None and told != self._told:
            raise DifferentModel(
                f"another model answers as {self.name!r} at {self.endpoint.base_url}: its fingerprint is {told!r:.40}. "
                "Point the URL back to the first model, or call renewed() if the change was meant"
            )


def _check_lengths(choices: list[Choice], lengths: list[int], generated: int) -> None:
    """Raises unless every prompt was echoed with one log-probability a token (after the first)."""
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
