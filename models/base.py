"""What a language model can do, in small protocols: `Generates`, `Scores`, `Embeds`; token ids in, arrays out.

A function says in its signature which ability it needs. Faster or rarer abilities of a back end are protocols,
too, defined where they are used: `treegym.models.tree_scores`, `treegym.models.readings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Required, TypedDict, TypeGuard, TypeVar, Unpack, runtime_checkable

import numpy as np

from treegym.errors import BackendError, ConfigError

__all__ = [
    "Embeds",
    "FoldsEnds",
    "Generates",
    "LanguageModel",
    "Sampling",
    "SamplingSettings",
    "Scores",
    "Speaker",
    "TextTokenizer",
    "TokenIds",
    "able",
    "check_contexts",
    "check_length",
    "context_length",
    "needed",
    "scores_prompts",
    "through_stop",
    "told_logprobs",
]

TokenIds = Sequence[int]


class TextTokenizer(Protocol):
    """Text to token ids and back. Decoding what was encoded gives the text back, byte for byte."""

    vocab_size: int
    eos_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: TokenIds) -> str: ...

    def pieces(self) -> list[bytes]:
        """Returns the bytes that each token id writes (empty for special tokens)."""
        ...

    def fingerprint(self) -> str:
        """Returns a hash of the vocabulary and the rules, equal for equal tokenizers."""
        ...


class SamplingSettings(TypedDict, total=False):
    """The keyword arguments of `Generates.generate`; their defaults are those of `Sampling`."""

    max_new_tokens: Required[int]
    temperature: float  # 0 is greedy
    seed: int
    stop_ids: TokenIds | None  # tokens that end a continuation; default EOS


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How continuations are drawn, as back ends read it: ``Sampling(**settings)``."""

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop_ids: TokenIds | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature <= 0.0

    def stops(self, tokenizer: TextTokenizer) -> list[int]:
        """Returns the tokens that end a continuation."""
        return [tokenizer.eos_id] if self.stop_ids is None else [int(token) for token in self.stop_ids]

    def row_seeds(self, rows: int) -> list[int]:
        """Returns a seed below 2**31 per row, for engines that draw: equal prompts must not share one."""
        return (np.random.SeedSequence(self.seed).generate_state(max(1, rows)) % 2**31).tolist()[:rows]


class Speaker(Protocol):
    """What every model has: a name, a vocabulary, a fingerprint."""

    name: str
    tokenizer: TextTokenizer

    def fingerprint(self) -> str:
        """Returns a hash of weights and configuration, equal for equal models."""
        ...


@runtime_checkable
class Generates(Speaker, Protocol):
    """A model that goes on from contexts: lists of token ids of any lengths."""

    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        """Returns a continuation per context, up to and with its stop token; the settings are those of `Sampling`."""
        ...


@runtime_checkable
class Scores(Speaker, Protocol):
    """A model that tells how likely tokens are."""

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        """Returns log-probabilities of the next token ``[B, V] float32``."""
        ...

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k likeliest next tokens, best first: ids ``[B, k] int32`` and log-probabilities ``[B, k]``."""
        ...

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        """Returns, for each pair, the log-probability of every continuation token ``[T] float32``."""
        ...


@runtime_checkable
class Embeds(Speaker, Protocol):
    """A model that describes contexts as vectors."""

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        """Returns one vector per context ``[B, D] float32`` (the last hidden state)."""
        ...


@runtime_checkable
class LanguageModel(Generates, Scores, Embeds, Protocol):
    """A batched, seeded causal language model with all three abilities, as a growth's primary needs them."""


class FoldsEnds(Protocol):
    """A model that folds all its ways to end a text into EOS by itself (`treegym.models.tokens.ends`)."""

    ends: tuple[int, ...]  # EOS first
    barred: tuple[int, ...]  # tokens with a stop string inside

    def ending_at(self, stops: Sequence[str]) -> Any:
        """Returns the model with answers that are over at stop strings too."""
        ...


_Ability = TypeVar("_Ability")
_GIVES = {"Generates": "words", "Scores": "log-probabilities", "Embeds": "hidden states"}


def able(model: object, ability: type[_Ability]) -> TypeGuard[_Ability]:
    """Whether a model has all methods of an ability.

    Wrappers that forward through ``__getattr__`` count, which `isinstance` no longer sees from Python 3.12 on.
    """
    bases = [base for base in ability.__mro__ if base is not Speaker]
    named = {name for base in bases for name, value in vars(base).items() if callable(value)}
    return all(callable(getattr(model, name, None)) for name in named if not name.startswith("_"))


def needed(model: Any, ability: type[_Ability]) -> _Ability:
    """Returns the model as one that has an ability, or raises BackendError."""
    if not able(model, ability):
        raise BackendError(
            f"{model.name} gives no {_GIVES.get(ability.__name__, ability.__name__)}; use it as a teacher, which needs "
            "words only"
        )
    return model


def check_contexts(contexts: Sequence[TokenIds], *, name: str = "", limit: int | None = None) -> None:
    """Raises when a context is empty, as no model can go on from nothing, or longer than a model's `limit`."""
    if any(not len(context) for context in contexts):
        raise ConfigError("a context is empty; a model needs at least one token to go on from")
    if limit is not None and contexts:
        check_length(max(map(len, contexts)), name=name, limit=limit)


def check_length(tokens: int, *, name: str, limit: int | None) -> None:
    """Raises when a text has more tokens than a model has positions."""
    if limit is not None and tokens > limit:
        raise ConfigError(
            f"a context has {tokens} tokens, but {name} takes {limit} at most; shorten it, or use a model with more "
            "positions (max_position_embeddings)"
        )


def through_stop(ids: Sequence[int], stops: Sequence[int]) -> list[int] | None:
    """Returns a continuation up to and with its first stop token, None where it holds none."""
    return next((list(ids[: place + 1]) for place, token in enumerate(ids) if token in stops), None)


def context_length(model: object) -> int | None:
    """Returns how many tokens a text may have, None for a model that does not say."""
    told = getattr(model, "context_length", None)
    return told if isinstance(told, int) else None


def told_logprobs(model: Speaker) -> int:
    """Returns how many of the likeliest tokens a model tells per position: all, unless it says that it tells fewer.

    The first call asks a served model's server what it understands.
    """
    if not able(model, Scores):
        return 0
    told = getattr(model, "told_logprobs", None)
    return model.tokenizer.vocab_size if told is None else int(told)


def scores_prompts(model: Speaker) -> bool:
    """Whether a model that tells few log-probabilities still tells those of the texts that it is given."""
    return bool(getattr(model, "scores_prompts", False))
