"""A deterministic language model without weights: for tests of everything that talks to a language model.

Its next-token distribution is a pure function of (seed, context), so results never depend on batching, order or
machine; it ends texts by itself, can be given answers to known prompts, and counts what was asked of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np

from treegym.errors import ConfigError, DataError
from treegym.models.base import Sampling, SamplingSettings, TokenIds
from treegym.models.local.decoding import choose_tokens, log_softmax, row_generators, score_by_steps, top_k

__all__ = ["FakeLanguageModel", "FakeTokenizer"]

ALPHABET = "0123456789+-*%=.,; abcdefghijklmnopqrstuvwxyz?"


class FakeTokenizer:
    """One token per character of a fixed alphabet, after the two special tokens (padding 0, end 1)."""

    def __init__(self, alphabet: str = ALPHABET) -> None:
        if len(set(alphabet)) != len(alphabet) or not alphabet:
            raise ConfigError(f"the alphabet must be distinct characters, at least one; got {alphabet!r}")
        self.alphabet = alphabet
        self.pad_id = 0
        self.eos_id = 1
        self.vocab_size = len(alphabet) + 2
        self._ids = {character: index + 2 for index, character in enumerate(alphabet)}

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise DataError(
                f"the character {error.args[0]!r} is not in the vocabulary; use {self.alphabet!r}"
            ) from None

    def decode(self, ids: TokenIds) -> str:
        return "".join(self.alphabet[i - 2] for i in ids if 2 <= i < self.vocab_size)

    def pieces(self) -> list[bytes]:
        return [b"", b"", *(character.encode() for character in self.alphabet)]

    def fingerprint(self) -> str:
        return hashlib.sha256(self.alphabet.encode()).hexdigest()


class FakeLanguageModel:
    """Fits `LanguageModel`. ``answers={prompt: text}`` makes it speak those answers greedily after those prompts."""

    def __init__(
        self,
        *,
        name: str = "fake",
        seed: int = 0,
        tokenizer: FakeTokenizer | None = None,
        answers: Mapping[str, str] | None = None,
        confidence: float = 4.0,
        ending: float = 0.25,
        width: int = 16,
    ) -> None:
        """`confidence` is the spread of the logits; `ending` what every token adds to the logit of EOS."""
        self.name = name
        self.tokenizer = tokenizer if tokenizer is not None else FakeTokenizer()
        self.seed = seed
        self.calls = 0  # forward calls, and
        self.contexts_scored = 0  # distributions computed, for tests of batching
        self._confidence, self._ending, self._width = confidence, ending, width
        self._answers = [  # prompt ids, answer ids with the end
            (self.tokenizer.encode(prompt), [*self.tokenizer.encode(text), self.tokenizer.eos_id])
            for prompt, text in sorted((answers or {}).items(), key=lambda item: (-len(item[0]), item[0]))
        ]

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        self.calls += 1
        self.contexts_scored += len(contexts)
        logits = np.empty((len(contexts), self.tokenizer.vocab_size))  # [B, V]
        for row, context in enumerate(contexts):
            ids = [int(i) for i in context]
            logits[row] = self._generator(ids).standard_normal(self.tokenizer.vocab_size) * self._confidence
            logits[row, self.tokenizer.pad_id] = -30.0
            logits[row, self.tokenizer.eos_id] += self._ending * len(ids) - 2.0 * self._confidence
            told = self._told(ids)
            if told is not None:
                logits[row, told] = logits[row].max() + self._confidence
        return log_softmax(logits)

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        return top_k(self.next_logprobs(contexts), k)

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        return score_by_steps(self.next_logprobs, contexts, continuations)

    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        asked = Sampling(**settings)
        stops = asked.stops(self.tokenizer)
        made: list[list[int]] = [[] for _ in contexts]
        generators = row_generators(asked.seed, len(contexts))
        going = list(range(len(contexts)))
        for _ in range(asked.max_new_tokens):
            if not going:
                break
            logprobs = self.next_logprobs([[*contexts[row], *made[row]] for row in going])
            chosen = choose_tokens(logprobs, asked.temperature, [generators[row] for row in going])
            for row, token in zip(going, chosen, strict=True):
                made[row].append(int(token))
            going = [row for row in going if made[row][-1] not in stops]
        return made

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        rows = [self._generator([-1, *context]).standard_normal(self._width) for context in contexts]
        return np.asarray(rows, dtype=np.float32).reshape(len(contexts), self._width)

    def fingerprint(self) -> str:
        rules = repr((self.seed, self._confidence, self._ending, self._width, self._answers))
        return hashlib.sha256((self.tokenizer.fingerprint() + rules).encode()).hexdigest()

    def _generator(self, ids: Sequence[int]) -> np.random.Generator:
        digest = hashlib.blake2b(repr((self.seed, [int(i) for i in ids])).encode(), digest_size=16).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))

    def _told(self, ids: list[int]) -> int | None:
        """Returns the token the given answers ask for after this context, if they know it."""
        for prompt, answer in self._answers:
            if ids[: len(prompt)] == prompt:
                said = ids[len(prompt) :]
                return answer[len(said)] if len(said) < len(answer) and answer[: len(said)] == said else None
        return None
