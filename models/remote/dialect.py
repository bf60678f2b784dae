"""Which of the protocol a server speaks, found by asking: token ids, batches, log-probabilities and how many, echo."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from treegym.errors import BackendError
from treegym.models.base import TextTokenizer, TokenIds, told_logprobs
from treegym.models.remote.endpoint import Endpoint, Refused
from treegym.models.remote.served_tokens import Choice, Vocabulary, read_choices
from treegym.models.remote.untrusted_json import MalformedAnswer

__all__ = ["Dialect", "detect", "growth_mode"]

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


def growth_mode(model: Any, wanted: str, *, proposals: int) -> tuple[str, str | None]:
    """Returns the growth mode a model can serve, and the notice to show when it is not the one wanted.

    ``step`` and ``mixed`` need `proposals` log-probabilities per position; a served model that gives fewer can still
    write whole answers. Models that are not served have all of them.
    """
    available, needed = told_logprobs(model), min(proposals, model.tokenizer.vocab_size)
    if wanted == "answers" or available >= needed:
        return wanted, None
    told = f"only {available} log-probabilities" if available else "no log-probabilities"
    return "answers", (
        f"{model.name} gives {told} per position, growth mode {wanted!r} needs {needed}: growing 'answers' instead"
    )
