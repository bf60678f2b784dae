"""Local language models for judges and detectors: loaded once, asked in batches, read off single verdict tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeVar, overload

import numpy as np

from treegym.errors import ConfigError
from treegym.models.base import LanguageModel, Scores
from treegym.models.loading import LOADING, load_model
from treegym.models.tokens.tokenizers import prefix_ids

__all__ = ["local_model", "verdict_probability"]

_Model = TypeVar("_Model", bound=Scores)

BATCH = 256  # texts sent to the model at once; the model cuts further by tokens


@functools.lru_cache(maxsize=4)
def _loaded(name: str) -> Any:
    return load_model(name)


@overload
def local_model(model: str) -> LanguageModel: ...


@overload
def local_model(model: _Model) -> _Model: ...


def local_model(model: Any) -> Any:
    """Returns a model by bundled name, directory or hub name, loaded once per process; a model is returned as it is."""
    if not isinstance(model, str):
        return model
    with LOADING:  # judges are asked from several threads, and the cache alone would load a model in each
        return _loaded(model)


def verdict_probability(model: Scores, texts: Sequence[str], *, yes: Sequence[str], no: Sequence[str]) -> np.ndarray:
    """Returns p(yes) / (p(yes) + p(no)) of the next token after each text, ``[B] float64``.

    The answer is constrained to the verdict tokens: whatever else the model would like to say does not count.

    Args:
        model: any language model.
        texts: what comes before the verdict.
        yes: strings that mean yes; the first token of each counts.
        no: strings that mean no.
    """
    affirm, deny = _first_tokens(model, yes), _first_tokens(model, no)
    if set(affirm) & set(deny):
        raise ConfigError(f"the verdicts {list(yes)} and {list(no)} begin with the same token of model {model.name!r}")
    begin = list(prefix_ids(model.tokenizer))  # a chat template may have written it already
    encoded = [model.tokenizer.encode(text) for text in texts]
    contexts = [ids if ids[: len(begin)] == begin else [*begin, *ids] for ids in encoded]
    result = np.empty(len(texts))
    for start in range(0, len(texts), BATCH):
        logprobs = model.next_logprobs(contexts[start : start + BATCH]).astype(np.float64)  # [b, V]
        for_yes = np.logaddexp.reduce(logprobs[:, affirm], axis=1)
        for_no = np.logaddexp.reduce(logprobs[:, deny], axis=1)
        result[start : start + BATCH] = 1.0 / (1.0 + np.exp(np.clip(for_no - for_yes, -700, 700)))
    return result


def _first_tokens(model: Scores, words: Sequence[str]) -> list[int]:
    firsts = sorted({ids[0] for word in words if (ids := model.tokenizer.encode(word))})
    if not firsts:
        raise ConfigError(f"model {model.name!r} has no token for any of the verdicts {list(words)}")
    return firsts
