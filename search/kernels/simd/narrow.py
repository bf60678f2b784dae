"""Rules for nodes of at most eight children, for one search or for eight abreast; formulas as in `rules`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from treegym.search.kernels.numeric import EPSILON, FAR, inlined
from treegym.search.kernels.simd.rows import (
    exponential,
    fused,
    larger,
    largest,
    number,
    numbers,
    place_of,
    read,
    read_columns,
    smaller,
    smallest,
    total,
    where,
    within,
)

__all__ = ["Asked", "gumbel", "puct"]


class Asked(NamedTuple):
    """The node that a child is to be chosen of: of one search as below, of eight as arrays of eight."""

    offset: Any  # int64, where the node's slots are in the tree's arrays
    width: Any  # float32, slots in use
    value: Any  # float32: PUCT: value of the node; Gumbel: what the evaluator thought of it
    explore: Any  # float32, PUCT: sqrt(N) C(N)
    considered: Any  # float32, Gumbel: new visits of the children considered at a root; -1 below it
    noisy: np.ndarray  # float32, Gumbel noise + log prior of the root's slots: [8], of eight searches [8 slots * 8]


@inlined
def _children(tree, asked, like):
    """Returns which slots are in use, their visits (0 elsewhere), and prior and Q, which are rubbish elsewhere."""
    inside = within(numbers(asked.width))
    visits = where(inside, read(tree.visits, asked.offset, like), number(np.float32(0.0), like))
    return inside, visits, read(tree.prior, asked.offset, like), read(tree.q, asked.offset, like)


@inlined
def puct(tree, asked):
    """Returns the slot to visit next, as `rows.place_of` does."""
    value = numbers(asked.value)
    zero, one = number(np.float32(0.0), value), number(np.float32(1.0), value)
    far, lowest = number(FAR, value), number(-FAR, value)
    inside, visits, prior, q = _children(tree, asked, value)
    seen = visits > zero
    low = smaller(smallest(where(seen, q, far)), value)
    high = larger(largest(where(seen, q, lowest)), value)
    scale = one / larger(high - low, number(EPSILON, value))
    explore = prior * numbers(asked.explore)
    score = where(seen, fused(q - low, scale, explore / (visits + one)), explore)
    score = where(inside, score, lowest)
    return place_of(score, largest(score))


@inlined
def gumbel(tree, settings, asked):
    """Returns the slot to visit next, as `rows.place_of` does; sequential halving where `considered` is not -1."""
    raw = numbers(asked.value)
    zero, one = number(np.float32(0.0), raw), number(np.float32(1.0), raw)
    far, lowest = number(FAR, raw), number(-FAR, raw)
    inside, visits, prior, q = _children(tree, asked, raw)
    seen = visits > zero
    count, most = total(visits), largest(visits)
    every = count + one
    mean = total(where(seen, prior * q, zero)) / total(where(seen, prior, zero))
    mixed = where(count > zero, fused(count, mean, raw) / every, raw)
    unseen = smallest(where(inside, visits, far)) == zero
    low, high = smallest(where(seen, q, far)), largest(where(seen, q, lowest))
    low = where(unseen, smaller(low, mixed), low)
    high = where(unseen, larger(high, mixed), high)
    scale = (number(np.float32(settings.c_visit), raw) + most) * number(np.float32(settings.c_scale), raw)
    gain = (where(seen, q, mixed) - high) * (scale / larger(high - low, number(EPSILON, raw)))
    weight = where(inside, prior * exponential(gain), zero)
    score = weight * every - visits * total(weight)  # pi' - n / (1 + sum n), times what would divide both
    considered = numbers(asked.considered)
    halved = larger(read_columns(asked.noisy, raw) + gain, number(np.float32(-1e9), raw))
    halved = where(visits == considered, halved, lowest)
    score = where(inside, where(zero > considered, score, halved), lowest)
    return place_of(score, largest(score))
