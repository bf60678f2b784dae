"""The back end `llama`: a GGUF file run by llama.cpp in this process, through the package `xllamacpp`.

Its engine answers completions: it takes token ids, many prompts at once, and keeps the keys and values of what its
slots have read, so prompts that begin like the ones before are not read again. It tells the likeliest next tokens with
their log-probabilities, as many as are asked for; all of a large vocabulary take half a second per position, since they
come as objects, so by default a growth is told `TOLD`. It scores no given texts and shows no hidden states, so it is a
teacher that answers and proposes, or a model to evaluate; it cannot close a tree.

Letters: B contexts, V vocabulary, k ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import parse_qsl

import numpy as np

from treegym.errors import BackendError, ConfigError, DataError, require, suggest
from treegym.models.base import (
    Sampling,
    SamplingSettings,
    Speaker,
    TextTokenizer,
    TokenIds,
    check_contexts,
    through_stop,
)
from treegym.models.batched_trees import score_trees_partly
from treegym.models.local.decoding import score_by_steps, whole_rows
from treegym.models.local.gguf_header import read_gguf_header
from treegym.models.local.memory import check_memory
from treegym.models.tree_scores import Branches, TreeScores

__all__ = ["LlamaModel", "connect"]

SCHEME = "llama:"
TOLD = 128  # likeliest tokens told per position, unless the address asks for more
SLOTS = 16  # texts under way at once
SETTINGS = {"threads": int, "context": int, "logprobs": int}


def connect(address: str, *, primary: Speaker | None = None) -> LlamaModel:
    """Returns the model at an address such as ``llama:model.gguf#threads=2&context=8192&logprobs=256``.

    Args:
        address: a GGUF file, a directory with one, or a provided name, and settings: threads, context (tokens of all
            texts under way), logprobs (likeliest tokens told per position).
        primary: not needed, as the file brings its tokenizer.
    """
    name, _, text = address.removeprefix(SCHEME).partition("#")
    settings: dict[str, int] = {}
    for key, value in parse_qsl(text, keep_blank_values=True):
        if key not in SETTINGS:
            raise ConfigError(f"{address}: unknown setting {key!r}.{suggest(key, SETTINGS)}")
        if not value.isdecimal() or int(value) < 1:
            raise ConfigError(f"{address}: {key} is {value!r}; a whole number from 1 was expected")
        settings[key] = int(value)
    return LlamaModel(name, **settings)


class LlamaModel:
    """Fits `Generates` and `Scores`; log-probabilities as far as they are told."""

    scores_prompts = False

    def __init__(self, name: str, *, threads: int = 1, context: int = 8192, logprobs: int = TOLD) -> None:
        """Loads a file.

        Args:
            name: a GGUF file, a directory with one, or a provided name.
            threads: CPU threads.
            context: tokens of all texts under way together.
            logprobs: likeliest tokens told per position.
        """
        from treegym.models.loading import gguf_file, resolve
        from treegym.models.tokens.tokenizers import HuggingFaceTokenizer, load_tokenizer

        file = gguf_file(name)
        if file is None:
            raise DataError(f"{name}: llama.cpp runs GGUF files only; name one, or a directory that holds one")
        header = read_gguf_header(file)
        check_memory(file.stat().st_size, doing=f"running {file.name}")
        engine: Any = require("xllamacpp", extra="llama", purpose="running llama.cpp in this process")
        self.name = file.stem if Path(name).exists() else name
        self.tokenizer: TextTokenizer = load_tokenizer(resolve(name)[0])
        known = header.metadata.get("tokenizer.ggml.tokens")  # transformers may have added one for the unknown
        if isinstance(self.tokenizer, HuggingFaceTokenizer) and isinstance(known, int):
            self.tokenizer.vocab_size = min(known, self.tokenizer.vocab_size)
        self.context_length = int(header.metadata.get(f"{header.architecture}.context_length", context))
        self.context_length = min(self.context_length, context)
        self.told_logprobs = min(logprobs, self.tokenizer.vocab_size)
        self._file, self._fingerprint = file, ""
        self._ends = {token for role in ("eos", "eot", "eom") if (token := header.token(role)) is not None}
        options = engine.CommonParams()
        options.model.path = str(file)
        options.n_ctx, options.n_parallel, options.kv_unified = context, SLOTS, True
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
        options.warmup, options.verbosity, options.cache_prompt = False, -1, True
        try:
            self._engine = engine.Server(options)
        except (RuntimeError, ValueError, OSError) as error:
            raise BackendError(f"{file}: llama.cpp cannot load it: {' '.join(str(error).split())}") from error

    # ---------------------------------------------------------------- what it can do

    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        """Returns a continuation for each context, up to and with its end; greedy at 0, else seeded by row."""
        asked = Sampling(**settings)
        stops, limit = asked.stops(self.tokenizer), asked.max_new_tokens
        fields: dict[str, Any] = {"max_tokens": limit, "temperature": float(asked.temperature), "n_probs": 1}
        if asked.greedy:
            choices = self._completed(contexts, fields)
        else:  # plain sampling: none of the engine's own cuts; equal prompts must not share a seed
            fields |= {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
            rows = zip(contexts, asked.row_seeds(len(contexts)), strict=True)
            choices = [self._completed([context], {**fields, "seed": own})[0] for context, own in rows]
        return [self._said(choice, stops, limit) for choice in choices]

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k likeliest next tokens, ids ``[B, k] int32`` and log-probabilities, best first."""
        k = min(k, self.tokenizer.vocab_size)
        fields = {"max_tokens": 1, "temperature": 0.0, "n_probs": k}
        order = _walk(contexts)
        choices = self._completed([contexts[row] for row in order], fields)
        ids, values = np.empty((len(contexts), k), np.int32), np.empty((len(contexts), k), np.float32)
        for row, choice in zip(order, choices, strict=True):
            told = choice["logprobs"]["content"][0]["top_logprobs"]
            if len(told) < k:
                raise BackendError(f"{self.name}: {k} log-probabilities were asked of llama.cpp and {len(told)} came")
            ids[row] = [entry["id"] for entry in told[:k]]
            values[row] = [entry["logprob"] for entry in told[:k]]
        return ids, values

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        """Returns log-probabilities of the next token ``[B, V] float32``; slow, as each comes as an object."""
        return whole_rows(*self.top_logprobs(contexts, self.tokenizer.vocab_size))

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        """Returns the log-probability of every continuation token, read off whole distributions one by one."""
        # one at a time: a row of a large vocabulary is megabytes of objects
        return score_by_steps(self.next_logprobs, contexts, continuations, at_once=1)

    def score_trees(
        self, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
    ) -> list[TreeScores]:
        """Returns the scores of tokens among the likeliest told, NaN for the others."""
        if hidden:
            raise BackendError(f"{self.name}: llama.cpp shows no hidden states; load the file itself as the primary")
        return score_trees_partly(
            self, trees, best=max(best, self.told_logprobs), given=self.told_logprobs, scores_prompts=False
        )

    def fingerprint(self) -> str:
        if not self._fingerprint:
            with self._file.open("rb") as opened:
                self._fingerprint = hashlib.file_digest(opened, "sha256").hexdigest()
        return self._fingerprint

    # ---------------------------------------------------------------- the engine

    def _completed(self, contexts: Sequence[TokenIds], fields: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the engine's choice for every context."""
        check_contexts(contexts, name=self.name, limit=self.context_length)
        found: list[dict[str, Any]] = []
        for start in range(0, len(contexts), SLOTS):
            prompts = [[int(i) for i in context] for context in contexts[start : start + SLOTS]]
            answer = self._engine.handle_completions({"prompt": prompts, "cache_prompt": True, **fields})
            if "error" in answer:
                raise BackendError(f"{self.name}: llama.cpp refused: {answer['error'].get('message', answer['error'])}")
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            if len(choices) != len(prompts):
                raise BackendError(f"{self.name}: {len(prompts)} texts were asked of llama.cpp, {len(choices)} came")
            found += choices
        return found

    def _said(self, choice: dict[str, Any], stops: list[int], limit: int) -> list[int]:
        """Returns the tokens of a continuation; any of the model's ends is written as EOS."""
        content = (choice.get("logprobs") or {}).get("content") or []
        ids = [int(entry["id"]) for entry in content]
        ids = [self.tokenizer.eos_id if token in self._ends else token for token in ids]
        if (cut := through_stop(ids, stops)) is not None:
            return cut[:limit]
        ended = choice.get("finish_reason") == "stop" and len(ids) < limit
        return [*ids[:limit], self.tokenizer.eos_id] if ended else ids[:limit]


def _walk(contexts: Sequence[TokenIds]) -> list[int]:
    """Returns the order in which a slot reads one context after another that begins like the one before.

    Sorted, contexts that begin alike are neighbours; each slot takes a run of them, and what is asked at once is the
    next of every run.
    """
    alike = sorted(range(len(contexts)), key=lambda row: tuple(contexts[row]))
    length = -(-len(alike) // SLOTS)
    return [row for place in range(length) for row in alike[place::length]]
