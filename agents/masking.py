"""One masked softmax for sampling, old and new log-probabilities, entropy and KL: masked logits are left out.

Letters: B rows, K children.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numba import njit

from treegym.errors import DataError

__all__ = [
    "EMPTY_MASK",
    "MASK",
    "choose",
    "greedy",
    "mask_of",
    "masked_entropy",
    "masked_log_softmax",
    "masked_log_softmax_array",
    "require_legal",
]

MASK = "action_mask"  # the key of observations that says which children are legal
EMPTY_MASK = "a state offers no legal child (its action mask is empty), so there is nothing to choose from"


def masked_log_softmax(logits: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Returns log-probabilities over the legal children ``[B, K]``; illegal ones are ``-inf`` and get no gradient."""
    if mask is None:
        return torch.log_softmax(logits, dim=-1)
    mask = mask.bool()
    if not bool(mask.any(dim=-1).all()):
        raise DataError(EMPTY_MASK)
    return torch.log_softmax(logits.masked_fill(~mask, -math.inf), dim=-1)


def masked_entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Returns the entropy of each row ``[B]``; a row with one legal child has entropy 0."""
    finite = log_probs.masked_fill(torch.isneginf(log_probs), 0.0)  # 0 * log 0 is 0, also in the gradient
    return -(finite.exp() * finite).masked_fill(torch.isneginf(log_probs), 0.0).sum(-1)


def masked_log_softmax_array(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the same as `masked_log_softmax` for NumPy arrays: ``[B, K] float32``."""
    require_legal(mask)
    return _log_softmax(np.asarray(logits, np.float32), mask.astype(np.bool_))


def mask_of(rows: Mapping[str, np.ndarray], num_actions: int) -> np.ndarray:
    """Returns the legal children ``[B, K] bool``; everything is legal where the env has no mask."""
    if MASK in rows:
        return rows[MASK] != 0
    return np.ones((len(next(iter(rows.values()))), num_actions), np.bool_)


def choose(logits: np.ndarray, mask: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples a legal child from each row by inverting its distribution function at `uniform`.

    Args:
        logits: ``[B, K] float32``.
        mask: ``[B, K] bool``, true where legal.
        uniform: ``[B] float64`` in [0, 1).

    Returns:
        Actions ``[B] int64`` and their log-probabilities ``[B] float32``.
    """
    actions, log_probs, empty = _choose(logits, mask, uniform)
    if empty >= 0:
        raise DataError(EMPTY_MASK)
    return actions, log_probs


def greedy(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the likeliest legal child of each row ``[B] int64``, the first of equals."""
    require_legal(mask)
    return np.where(mask, logits, -np.inf).argmax(-1)


def require_legal(mask: np.ndarray) -> None:
    """Raises ValueError if a row of ``[B, K]`` has no legal child."""
    if not mask.any(axis=-1).all():
        raise DataError(EMPTY_MASK)


@njit(cache=True)
def _log_softmax(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows, width = logits.shape
    out = np.empty((rows, width), np.float32)
    for b in range(rows):
        high = -np.inf
        for k in range(width):
            if mask[b, k] and logits[b, k] > high:
                high = logits[b, k]
        total = 0.0
        for k in range(width):
            if mask[b, k]:
                total += math.exp(logits[b, k] - high)
        shift = high + math.log(total)
        for k in range(width):
            out[b, k] = logits[b, k] - shift if mask[b, k] else -np.inf
    return out


@njit(cache=True)
def _choose(logits: np.ndarray, mask: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    rows, width = logits.shape
    actions = np.empty(rows, np.int64)
    log_probs = np.empty(rows, np.float32)
    for b in range(rows):
        high = -np.inf
        last = -1
        for k in range(width):
            if mask[b, k]:
                last = k
                high = max(high, logits[b, k])
        if last < 0:
            return actions, log_probs, b
        total = 0.0
        for k in range(width):
            if mask[b, k]:
                total += math.exp(logits[b, k] - high)
        target = uniform[b] * total
        running = 0.0
        chosen = last  # rounding may leave the sum a hair below the target
        for k in range(width):
            if mask[b, k]:
                running += math.exp(logits[b, k] - high)
                if running > target:
                    chosen = k
                    break
        actions[b] = chosen
        log_probs[b] = logits[b, chosen] - high - math.log(total)
    return actions, log_probs, -1
