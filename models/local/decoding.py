"""What every back end shares when it turns log-probabilities into tokens: log-softmax, top-k, seeded sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from treegym.models.base import TokenIds

__all__ = ["choose_tokens", "log_softmax", "row_generators", "score_by_steps", "top_k", "whole_rows"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns log-probabilities of ``[..., V]`` logits as float32."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))).astype(np.float32)


def top_k(logprobs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k best columns of ``[B, V]`` scores, best first; ties go to the smaller token id."""
    k = min(k, logprobs.shape[-1])
    ids = np.argsort(-logprobs, axis=-1, kind="stable")[:, :k].astype(np.int32)  # [B, k]
    return ids, np.take_along_axis(logprobs, ids, axis=-1)


def row_generators(seed: int, rows: int) -> list[np.random.Generator]:
    """Returns one generator per row, so that a row's sample does not depend on which rows share its batch's ending."""
    return [np.random.default_rng([seed, row]) for row in range(rows)]


def choose_tokens(logprobs: np.ndarray, temperature: float, generators: list[np.random.Generator]) -> np.ndarray:
    """Returns one token per row ``[B] int64``: the likeliest at temperature 0, else a sample by inverse CDF."""
    if temperature <= 0.0:
        return logprobs.argmax(axis=-1)
    scaled = np.exp(log_softmax(logprobs / temperature).astype(np.float64))  # [B, V]
    cumulative = scaled.cumsum(axis=-1)
    draws = np.array([generator.random() for generator in generators]) * cumulative[:, -1]  # [B]
    return np.minimum((cumulative <= draws[:, None]).sum(axis=-1), logprobs.shape[-1] - 1)


def whole_rows(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns ``[B, V] float32`` of all tokens' log-probabilities, told with their ids in any order."""
    rows = np.empty(values.shape, np.float32)
    np.put_along_axis(rows, ids.astype(np.int64), values, axis=1)
    return rows


def score_by_steps(
    next_logprobs: Callable[[Sequence[TokenIds]], np.ndarray],
    contexts: Sequence[TokenIds],
    continuations: Sequence[TokenIds],
    *,
    at_once: int | None = None,
) -> list[np.ndarray]:
    """Returns the log-probability of every continuation token, read off the whole distribution before it.

    For back ends that score no given texts. `at_once` bounds how many distributions are in memory.
    """
    pairs = zip(contexts, continuations, strict=True)
    steps = [([*context, *said[:cut]], int(said[cut])) for context, said in pairs for cut in range(len(said))]
    size = at_once or max(1, len(steps))
    values = np.zeros(len(steps), np.float32)
    for start in range(0, len(steps), size):
        block = steps[start : start + size]
        logprobs = next_logprobs([context for context, _ in block])
        values[start : start + size] = logprobs[np.arange(len(block)), [token for _, token in block]]
    ends = np.cumsum([len(said) for said in continuations], dtype=np.int64)
    return [values[end - len(said) : end] for end, said in zip(ends.tolist(), continuations, strict=True)]
