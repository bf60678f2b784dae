"""What a critic learns from an episode whose every move was searched. Letters: N positions, E episodes, K children."""

from __future__ import annotations

import numpy as np

__all__ = ["followed_returns", "n_step_returns", "searched_worth"]


def n_step_returns(
    rewards: np.ndarray,
    values: np.ndarray,
    lengths: np.ndarray,
    *,
    n: int,
    gamma: float,
    behind: np.ndarray | None = None,
) -> np.ndarray:
    """Returns r_t + ... + gamma^(n-1) r_{t+n-1} + gamma^n v_{t+n} within each episode ``[N] float32``.

    ``behind [E]`` is the value of where each episode was cut off: 0, as unless given, where it ended.
    """
    out = np.zeros(len(rewards), np.float64)
    start = 0
    for episode, length in enumerate(lengths.tolist()):
        last = start + length
        for t in range(start, last):
            end = min(t + n, last)
            after = values[end] if end < last else 0.0 if behind is None else behind[episode]
            out[t] = (rewards[t:end] * gamma ** np.arange(end - t)).sum() + gamma ** (end - t) * after
        start = last
    return out.astype(np.float32)


def followed_returns(
    rewards: np.ndarray,
    values: np.ndarray,
    followed: np.ndarray,
    lengths: np.ndarray,
    *,
    trace: float,
    gamma: float,
    behind: np.ndarray,
) -> np.ndarray:
    """Returns what following the search is worth at each position ``[N] float32``.

        G_t = r_t + gamma ((1 - trace) v_{t+1} + trace G_{t+1})   where the search's own move was played,
        G_t = v_t                                                 where another was drawn to explore

    v is what search found a position to be worth. Returns that ran through moves drawn to explore would tell the critic
    what exploring is worth; so they are cut there, as in Watkins's Q(lambda) and the greedy backup of
    https://doi.org/10.1007/s00521-021-05928-5, which however takes the greedy path within the tree for v.

    Args:
        rewards: ``[N]``, episodes one after the other.
        values: ``[N]``, v.
        followed: ``[N] bool``, whether the search's own move was played.
        lengths: ``[E]``.
        trace: lambda.
        gamma: below 0 between two players in turn.
        behind: ``[E]``, the value of where each episode was cut off, 0 where it ended.
    """
    out = np.zeros(len(rewards), np.float64)
    first = 0
    for episode, length in enumerate(lengths.tolist()):
        after = float(behind[episode])
        for t in range(first + length - 1, first - 1, -1):
            found = rewards[t] + gamma * after if followed[t] else values[t]
            out[t] = found
            after = (1.0 - trace) * values[t] + trace * found
        first += length
    return out.astype(np.float32)


def searched_worth(policy: np.ndarray, q: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Returns what playing by the improved policy is worth: sum of pi q over visited children ``[N] float32``.

    The mean of a root's simulations, ``value [N]``, counts the visits spent on trying poor moves; it is taken where no
    child was visited.

    Args:
        policy: ``[N, K]``, pi.
        q: ``[N, K]``, NaN where unvisited.
        value: ``[N]``.
    """
    weight = np.where(np.isnan(q), 0.0, policy)
    total = weight.sum(1)
    found = (weight * np.nan_to_num(q)).sum(1) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, found, value).astype(np.float32)
