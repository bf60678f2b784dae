"""What every back end shares when it turns log-probabilities into tokens: log-softmax, top-k, seeded sampling."""

from __future__ import annotations

import numpy as np

__all__ = ["choose_tokens", "log_softmax", "row_generators", "top_k"]


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
