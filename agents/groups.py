r"""Statistics over groups of episodes that start at the same root: advantages, filtering, length penalties.

Letters: E episodes. Groups are given by an id per episode, so that they need not be of equal size.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "group_centred",
    "group_leave_one_out",
    "group_normalised",
    "informative_groups",
    "soft_overlong",
]

SPREAD_TOLERANCE = 1e-6  # seven float32 copies of 0.1 have a standard deviation of 8e-9, not 0


def group_normalised(returns: np.ndarray, groups: np.ndarray, *, eps: float = 1e-6) -> np.ndarray:
    r"""Returns :math:`A = (R - mean_g) / (std_g + eps)` with ddof 1 (GRPO, DAPO): ``[E] float32``.

    A group of one episode, or of equal returns, has no signal: 0.
    """
    centred, index, count = _centred(returns, groups)
    variance = np.bincount(index, centred**2) / np.maximum(count - 1, 1)
    spread = np.sqrt(variance)
    scale = np.where(spread > SPREAD_TOLERANCE * _magnitude(returns, index), 1.0 / (spread + eps), 0.0)
    return (centred * scale[index]).astype(np.float32)


def group_centred(returns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns R - mean_g (Dr. GRPO, https://arxiv.org/abs/2503.20783): ``[E] float32``."""
    return _centred(returns, groups)[0].astype(np.float32)


def group_leave_one_out(returns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns G / (G - 1) (R - mean_g), i.e. R minus the mean of the others (RLOO): ``[E] float32``; 0 if alone."""
    centred, index, count = _centred(returns, groups)
    return (centred * np.where(count > 1, count / np.maximum(count - 1, 1), 0.0)[index]).astype(np.float32)


def informative_groups(
    returns: np.ndarray, groups: np.ndarray, correct: np.ndarray | None, *, tolerance: float = SPREAD_TOLERANCE
) -> np.ndarray:
    """Returns which episodes belong to a group that can teach something ``[E] bool`` (DAPO's dynamic sampling).

    With correctness flags a group is kept when 0 < #correct < G: the filter looks at correctness, not at the shaped
    reward, whose length terms would make spurious variance. Without them it is kept when its returns differ by more
    than `tolerance` relative to their size.
    """
    _, index = np.unique(groups, return_inverse=True)
    if correct is not None:
        count = np.bincount(index)
        good = np.bincount(index, np.asarray(correct, np.float64))
        return ((good > 0) & (good < count))[index]
    returns = np.asarray(returns, np.float64)
    high = np.full(index.max(initial=-1) + 1, -np.inf)
    low = np.full(index.max(initial=-1) + 1, np.inf)
    np.maximum.at(high, index, returns)
    np.minimum.at(low, index, returns)
    return (high - low > tolerance * _magnitude(returns, index))[index]


def soft_overlong(lengths: np.ndarray, *, max_length: int, cache: int) -> np.ndarray:
    r"""Returns DAPO's soft overlong punishment for each episode ``[E] float32`` (equation 13 of the paper).

    0 while :math:`|y| \le L_{max} - L_c`, then falling linearly to -1 at :math:`L_{max}`, and -1 beyond.
    """
    if not 0 < cache <= max_length:
        raise ValueError(f"overlong_cache must be in 1..max_length ({max_length}), got {cache}")
    over = (max_length - cache) - np.asarray(lengths, np.float64)
    return np.clip(over / cache, -1.0, 0.0).astype(np.float32)


def _centred(returns: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns R - mean of its group ``[E]``, the group's index of each episode ``[E]``, and group sizes ``[G]``."""
    returns = np.asarray(returns, np.float64)
    _, index = np.unique(groups, return_inverse=True)
    count = np.bincount(index)
    mean = np.bincount(index, returns) / np.maximum(count, 1)
    return returns - mean[index], index, count


def _magnitude(returns: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns the largest absolute return of each group, at least 1e-30: what a tolerance is relative to."""
    size = np.full(index.max(initial=-1) + 1, 1e-30)
    np.maximum.at(size, index, np.abs(np.asarray(returns, np.float64)))
    return size
