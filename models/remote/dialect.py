"""Who is behind an address: the models listed there, what of the protocol they speak, and whether they are the same.

What it speaks is found by asking: token ids, batches, log-probabilities and how many, echo. Whether another model
answers now is told by how it behaves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from treegym.errors import BackendError, ConfigError, suggest
from treegym.models.base import TextTokenizer, TokenIds
from treegym.models.remote.answers import Choice, MalformedAnswer, Vocabulary, field, read_choices
from treegym.models.remote.endpoint import Endpoint, Refused
from treegym.models.tokens.tokenizers import prefix_ids

__all__ = ["Dialect", "DifferentModel", "detect", "difference", "model_cards", "probe_contexts", "served_model"]


def model_cards(endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """Returns the server's list of models: name -> what it says of it."""

    def read(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {field(card, "id", str): card for card in field(answer, "data", list)}

    return endpoint.get("models", check=read)


def served_model(endpoint: Endpoint, wanted: str | None = None) -> str:
    """Returns the name of the model to ask for: the one wanted, or the only one there is."""
    names = list(model_cards(endpoint))
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"{endpoint.base_url} does not serve a model {wanted!r}.{suggest(wanted, names)}")
        return wanted
    if not names:
        raise MalformedAnswer(f"{endpoint.base_url} lists no models")
    if len(names) > 1:
        raise ConfigError(f"{endpoint.base_url} serves {len(names)} models; name one with model=.{suggest('', names)}")
    return names[0]


logger = logging.getLogger(__name__)
PROBED = 4096  # a server that gives this many log-probabilities is taken to give all
MALFORMED_TRIES = 4  # so many damaged answers mean that the server does not speak this dialect, not that it stumbled
# Fields beyond OpenAI's that vLLM, SGLang and our own server know: tokens named by id, and sampling settings that a
# model's directory may carry and that would make greedy decoding something else.
EXTRAS: dict[str, Any] = {
    "return_tokens_as_token_ids": True,
    "return_token_ids": True,
    "add_special_tokens": False,
    "repetition_penalty": 1.0,
}


@dataclass(frozen=True)
class Dialect:
    """What a server was found to understand."""

    ids: bool  # prompts may be token ids; else they are text, and token boundaries are the server's
    extras: bool  # it takes the fields of EXTRAS
    batch: bool  # several prompts in one request
    logprobs: int  # how many of the likeliest tokens it tells per position; 0: none
    echo: int  # tokens it must generate to score a prompt (0 or 1); -1: it cannot

    def body(self, prompts: Sequence[TokenIds], tokenizer: TextTokenizer, **fields: Any) -> dict[str, Any]:
        """Returns the request for these prompts."""
        written: list[Any] = [[int(i) for i in p] if self.ids else tokenizer.decode(p) for p in prompts]
        prompt = written if self.batch else written[0]
        return {"prompt": prompt, **fields, **(EXTRAS if self.extras else {})}


def detect(endpoint: Endpoint, model: str, tokenizer: TextTokenizer, contexts: Sequence[TokenIds]) -> Dialect:
    """Returns the richest dialect the server answers in; `contexts` are two short contexts to try it on."""
    vocabulary = Vocabulary(tokenizer)

    def ask(dialect: Dialect, prompts: Sequence[TokenIds], **fields: Any) -> list[Choice] | None:
        body = {"model": model, **dialect.body(prompts, tokenizer, **fields)}
        try:
            return endpoint.post(
                "completions",
                body,
                check=lambda answer: read_choices(answer, len(prompts), vocabulary),
                malformed_tries=MALFORMED_TRIES,
            )
        except Refused as error:
            if error.status in (401, 403, 404):
                raise
            return None
        except MalformedAnswer:
            return None

    one = list(contexts[:1])
    common = {"max_tokens": 1, "temperature": 0.0}
    poorest = Dialect(ids=False, extras=False, batch=False, logprobs=0, echo=-1)
    for ids, extras in ((True, True), (True, False), (False, True), (False, False)):
        found = replace(poorest, ids=ids, extras=extras)
        # Twice: a server may refuse the mere mention of log-probabilities, and still complete.
        if ask(found, one, logprobs=1, **common) is not None or ask(found, one, **common) is not None:
            break
    else:
        raise BackendError(f"{endpoint.base_url} answers no completion of {model!r}; see the server's own log")
    batched = replace(found, batch=True)
    if ask(batched, list(contexts[:2]), **common) is not None:
        found = batched
    for wanted in dict.fromkeys((min(vocabulary.size, PROBED), 100, 20, 5, 1)):
        choices = ask(found, one, logprobs=wanted, **common) if wanted <= vocabulary.size else None
        if choices and choices[0].tops and choices[0].tops[0]:
            given = len(choices[0].tops[0])
            complete = given >= wanted and wanted == min(vocabulary.size, PROBED)
            found = replace(found, logprobs=vocabulary.size if complete else min(given, wanted))
            break
    if found.logprobs:
        for generated in (0, 1):
            fields = {"max_tokens": generated, "temperature": 0.0, "logprobs": 0, "echo": True}
            choices = ask(found, one, **fields)
            if choices and len(choices[0].logprobs) == len(one[0]) + generated:
                found = replace(found, echo=generated)
                break
    logger.info("%s speaks %s", endpoint.base_url, found)
    return found


PROBES, LENGTH = 4, 6


class DifferentModel(BackendError):
    """Another model answers behind the same URL; what was asked before and what would be asked now do not mix."""


def probe_contexts(tokenizer: TextTokenizer) -> list[list[int]]:
    """Returns the fixed contexts on which models are told apart, any tokenizer's own."""
    printable = [token for token, piece in enumerate(tokenizer.pieces()) if piece]
    drawn = np.random.default_rng(20_26).integers(0, len(printable), size=(PROBES, LENGTH))
    begin = list(prefix_ids(tokenizer))
    return [begin + [printable[i] for i in row] for row in drawn.tolist()]


def difference(
    before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray], contexts: Sequence[TokenIds]
) -> float:
    """Returns the largest change of a log-probability among the tokens both told, infinite if they share too few.

    Each is token ids ``[P, k] int32`` and log-probabilities ``[P, k] float32`` of the probe contexts. Tokens near the
    cut at k may swap by rounding, so one in the list may be missing from the other.
    """
    largest = 0.0
    for row in range(len(contexts)):
        old = dict(zip(before[0][row].tolist(), before[1][row].tolist(), strict=True))
        new = dict(zip(now[0][row].tolist(), now[1][row].tolist(), strict=True))
        shared = old.keys() & new.keys()
        if len(shared) < max(1, len(old) - 1):
            return float("inf")
        largest = max(largest, *(abs(old[token] - new[token]) for token in shared))
    return largest
