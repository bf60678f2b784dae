r"""Advantages and returns of packed episodes, as pure functions of arrays.

Packed: the steps of episode 0, then those of episode 1, ...; `lengths` cuts them. Letters: N steps, E episodes.

Generalised advantage estimation (Schulman et al., https://arxiv.org/abs/1506.02438):

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t),   A_t = delta_t + gamma lambda A_{t+1}

with V behind the last step = `bootstrap` (the value of the state a time limit or the end of a segment cut off; 0 after
a terminal). Steps that are not `valid` (padding, text of the environment between two actions) are skipped: the step
before them looks at the next valid one.
"""

from __future__ import annotations

import warnings

import numpy as np
from numba import njit

__all__ = ["discounted_returns", "gae", "lambda_for_length", "whiten"]


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    *,
    gamma: float,
    lam: float | np.ndarray,
    lengths: np.ndarray | None = None,
    bootstrap: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the advantage of every step; ``advantages + values`` are the lambda-returns.

    Args:
        rewards: ``[N] float``.
        values: ``[N] float``, the critic's values of the states acted in.
        gamma: the discount.
        lam: one lambda, or one for each episode ``[E]``.
        lengths: ``[E] int`` steps of each episode; None means one episode.
        bootstrap: ``[E] float`` value behind each episode's last step; None means 0.
        valid: ``[N] bool``; None means all. Steps that are not valid get advantage 0.

    Returns:
        ``[N] float32``.
    """
    rewards = np.ascontiguousarray(rewards, np.float64)
    values = np.ascontiguousarray(values, np.float64)
    counts = np.array([len(rewards)]) if lengths is None else np.ascontiguousarray(lengths, np.int64)
    lambdas = np.broadcast_to(np.asarray(lam, np.float64), counts.shape).copy()
    behind = np.zeros(len(counts)) if bootstrap is None else np.ascontiguousarray(bootstrap, np.float64)
    usable = np.ones(len(rewards), np.bool_) if valid is None else np.ascontiguousarray(valid, np.bool_)
    if not len(rewards) == len(values) == len(usable) == counts.sum():
        raise ValueError(
            f"{len(rewards)} rewards, {len(values)} values, {counts.sum()} steps in the episodes: not equal"
        )
    return _gae(rewards, values, counts, behind, usable, float(gamma), lambdas)


def discounted_returns(
    rewards: np.ndarray,
    *,
    gamma: float,
    lengths: np.ndarray | None = None,
    bootstrap: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the Monte-Carlo return from every step ``[N] float32``: GAE with lambda 1 and a critic of zeros."""
    zeros = np.zeros(len(rewards))
    return gae(rewards, zeros, gamma=gamma, lam=1.0, lengths=lengths, bootstrap=bootstrap, valid=valid)


def lambda_for_length(
    lengths: np.ndarray, *, alpha: float = 0.05, lambda_min: float = 0.0, warn: bool = True
) -> np.ndarray:
    r"""Returns VAPO's length-adaptive lambda for each episode (https://arxiv.org/abs/2504.05118, section 4.2).

    :math:`\lambda = 1 - 1 / (\alpha l)`, clamped to [lambda_min, 1]. With the paper's alpha 0.05 every episode of up to
    20 steps gets at most 0, i.e. one-step advantages only, hence the floor and the warning; short episodes want a
    larger alpha (alpha = 1 gives lambda 0.9 at 10 steps).

    Args:
        lengths: ``[E] int``.
        alpha: how fast lambda approaches 1 with length.
        lambda_min: the floor.
        warn: whether to warn when most episodes fall to the floor.

    Returns:
        ``[E] float64``.
    """
    raw = 1.0 - 1.0 / (alpha * np.maximum(np.asarray(lengths, np.float64), 1.0))
    if warn and len(raw) and np.mean(raw <= 0.0) > 0.5:
        warnings.warn(
            f"most episodes are at most {1 / alpha:g} steps long, for which alpha={alpha:g} gives lambda <= 0: "
            f"raise alpha (about {10 / max(float(np.median(lengths)), 1.0):.2g} gives 0.9 here) or lambda_min",
            stacklevel=2,
        )
    return np.clip(raw, lambda_min, 1.0)


def whiten(values: np.ndarray, *, eps: float = 1e-8) -> np.ndarray:
    """Returns the values with mean 0 and standard deviation 1 over the whole batch ``[N] float32``."""
    values = np.asarray(values, np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    return ((values - values.mean()) / (spread + eps)).astype(np.float32)


@njit(cache=True)
def _gae(
    rewards: np.ndarray,
    values: np.ndarray,
    lengths: np.ndarray,
    bootstrap: np.ndarray,
    valid: np.ndarray,
    gamma: float,
    lambdas: np.ndarray,
) -> np.ndarray:
    out = np.zeros(len(rewards), np.float32)
    start = 0
    for e in range(len(lengths)):
        next_value = bootstrap[e]
        running = 0.0
        for t in range(start + lengths[e] - 1, start - 1, -1):
            if valid[t]:
                running = rewards[t] + gamma * next_value - values[t] + gamma * lambdas[e] * running
                out[t] = running
                next_value = values[t]
        start += lengths[e]
    return out
