r"""The parts of a Llama layer that are not matrix products, compiled: norm, rotation, attention, gated activation.

Tokens of all sequences follow one another without padding. A *segment* is a run of them; it may continue an
earlier one (`before`), so what many completions have in common, their prompt, is read once and attended to by all.

Letters: M tokens, S segments, D hidden size, H heads, G key/value heads, d head size, F inner size, B rows, C slots,
P places. The columns of ``qkv [M, (H + 2G) d]`` are queries, keys and values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from treegym.search.kernels.numeric import LN2_HIGH, LN2_LOW, LOG2_E, exp_series

__all__ = [
    "attend_backward",
    "attend_forward",
    "attend_step",
    "continues",
    "rms_backward",
    "rms_forward",
    "rotate",
    "swiglu_backward",
    "swiglu_forward",
]  # fmt: skip

FAST: Any = {"contract", "reassoc", "nsz", "arcp"}  # NaN and infinity stay what they are
Array = np.ndarray


_exp_series = njit(inline="always")(exp_series)


@njit(inline="always")
def _exp(x: Any) -> Any:
    """Returns e^x to 3e-7, so that loops over arrays can do several at a time; NaN stays NaN."""
    came = x
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    whole = np.floor(x * LOG2_E + np.float32(0.5))
    rest = x - whole * LN2_HIGH
    rest = rest - whole * -LN2_LOW
    series = _exp_series(rest)
    power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)  # 2^whole
    result = (series * rest * rest + rest + np.float32(1.0)) * power
    return result if came == came else came


@njit(cache=True, fastmath=FAST)
def rms_forward(x: Array, weight: Array, eps: float, out: Array, scale: Array) -> None:
    """Writes ``out [M, D] = x / rms(x) * weight`` and ``scale [M] = 1 / rms(x)``."""
    rows, size = x.shape
    for m in range(rows):
        here, there = x[m], out[m]
        total = np.float32(0.0)
        for i in range(size):
            total += here[i] * here[i]
        s = np.float32(1.0 / math.sqrt(total / size + eps))
        scale[m] = s
        for i in range(size):
            there[i] = here[i] * s * weight[i]


@njit(cache=True, fastmath=FAST)
def rms_backward(by_out: Array, x: Array, weight: Array, scale: Array, by_x: Array, by_weight: Array) -> None:
    """Adds the gradients to ``by_x [M, D]`` and ``by_weight [D]``."""
    rows, size = x.shape
    for m in range(rows):
        here, given, gradient = x[m], by_out[m], by_x[m]
        s = scale[m]
        dot = np.float32(0.0)
        for i in range(size):
            dot += given[i] * weight[i] * here[i]
        pull = dot * s * s * s / np.float32(size)
        for i in range(size):
            by_weight[i] += given[i] * here[i] * s
        for i in range(size):
            gradient[i] += given[i] * weight[i] * s - here[i] * pull


@njit(cache=True, fastmath=FAST)
def rotate(qkv: Array, place: Array, cos: Array, sin: Array, heads: int, sign: float) -> None:
    """Turns the first `heads` heads of every row by the angles of its place; sign -1 turns them back."""
    half = cos.shape[1]
    turn = np.float32(sign)
    for m in range(len(place)):
        c, s = cos[place[m]], sin[place[m]]
        for h in range(heads):
            head = qkv[m, 2 * half * h : 2 * half * (h + 1)]
            low, high = head[:half], head[half:]
            for i in range(half):
                a, b = low[i], high[i]
                low[i] = a * c[i] - b * turn * s[i]
                high[i] = b * c[i] + a * turn * s[i]


@njit(inline="always")
def _add_scaled(into: Array, factor: float, row: Array) -> None:
    for i in range(len(into)):
        into[i] += factor * row[i]


@njit(inline="always")
def _softmax(weight: Array, count: int) -> tuple[Any, Any]:
    """Turns scores into e^(score - top) in place; returns the top and the sum."""
    top = weight[0]
    for j in range(count):
        top = max(top, weight[j])
    total = np.float32(0.0)
    for j in range(count):
        weight[j] = _exp(weight[j] - top)
        total += weight[j]
    return top, total


@njit(cache=True, fastmath=FAST)
def _longest(length: Array, before: Array) -> int:
    longest = 0
    for s in range(len(length)):
        longest = max(longest, length[s] + (length[before[s]] if before[s] >= 0 else 0))
    return longest


@njit(cache=True, fastmath=FAST)
def _columns(qkv: Array, start: int, count: int, first: int, into: Array, at: int) -> None:
    """Writes a head's columns of rows start.. as columns ``into[:, at:]``."""
    size = len(into)
    for j in range(count):
        row = qkv[start + j, first : first + size]
        for i in range(size):
            into[i, at + j] = row[i]


@njit(cache=True, fastmath=FAST)
def attend_forward(
    qkv: Array, start: Array, length: Array, before: Array, heads: int, groups: int, scaling: float, out: Array,
    logs: Array,
) -> None:  # fmt: skip
    """Writes causal attention ``out [M, H d]`` and the logarithm of every softmax's sum ``logs [M, H]``."""
    size = out.shape[1] // heads
    longest = _longest(length, before)
    keys, weight = np.empty((size, longest), np.float32), np.empty(longest, np.float32)
    factor = np.float32(scaling)
    for s in range(len(start)):
        a, n = start[s], length[s]
        pa, pn = (start[before[s]], length[before[s]]) if before[s] >= 0 else (0, 0)
        for h in range(heads):
            g = h // (heads // groups)
            fk, fv = (heads + g) * size, (heads + groups + g) * size
            _columns(qkv, pa, pn, fk, keys, 0)
            _columns(qkv, a, n, fk, keys, pn)
            for t in range(n):
                m, count = a + t, pn + t + 1
                scores, query = weight[:count], qkv[m, h * size : (h + 1) * size]
                scores[:] = 0.0
                for i in range(size):
                    _add_scaled(scores, query[i] * factor, keys[i])
                top, total = _softmax(scores, count)
                logs[m, h] = top + math.log(total)
                share = np.float32(1.0) / total
                mixed = out[m, h * size : (h + 1) * size]
                mixed[:] = 0.0
                for j in range(count):
                    row = pa + j if j < pn else a + j - pn
                    _add_scaled(mixed, scores[j] * share, qkv[row, fv : fv + size])


@njit(cache=True, fastmath=FAST)
def attend_backward(
    qkv: Array, start: Array, length: Array, before: Array, heads: int, groups: int, scaling: float, out: Array,
    logs: Array, by_out: Array, by_qkv: Array,
) -> None:  # fmt: skip
    """Adds the gradient to ``by_qkv [M, (H + 2G) d]``, which starts at zero."""
    size = out.shape[1] // heads
    longest = _longest(length, before)
    keys, values = np.empty((size, longest), np.float32), np.empty((size, longest), np.float32)
    weight, slope = np.empty(longest, np.float32), np.empty(longest, np.float32)
    factor = np.float32(scaling)
    for s in range(len(start)):
        a, n = start[s], length[s]
        pa, pn = (start[before[s]], length[before[s]]) if before[s] >= 0 else (0, 0)
        for h in range(heads):
            g = h // (heads // groups)
            fq, fk, fv = h * size, (heads + g) * size, (heads + groups + g) * size
            _columns(qkv, pa, pn, fk, keys, 0)
            _columns(qkv, a, n, fk, keys, pn)
            _columns(qkv, pa, pn, fv, values, 0)
            _columns(qkv, a, n, fv, values, pn)
            for t in range(n):
                m, count = a + t, pn + t + 1
                shares, slopes = weight[:count], slope[:count]
                query, given, mixed = qkv[m, fq : fq + size], by_out[m, fq : fq + size], out[m, fq : fq + size]
                shares[:] = 0.0
                slopes[:] = 0.0
                along = np.float32(0.0)
                for i in range(size):
                    along += given[i] * mixed[i]
                for i in range(size):
                    _add_scaled(shares, query[i] * factor, keys[i])
                    _add_scaled(slopes, given[i], values[i])
                log = logs[m, h]
                for j in range(count):
                    shares[j] = _exp(shares[j] - log)
                    slopes[j] = shares[j] * (slopes[j] - along) * factor
                by_query = by_qkv[m, fq : fq + size]
                for j in range(count):
                    row = pa + j if j < pn else a + j - pn
                    _add_scaled(by_query, slopes[j], qkv[row, fk : fk + size])
                    _add_scaled(by_qkv[row, fk : fk + size], slopes[j], query)
                    _add_scaled(by_qkv[row, fv : fv + size], shares[j], given)


@njit(cache=True, fastmath=FAST)
def attend_step(
    qkv: Array, slot: Array, place: Array, keys: Array, values: Array, heads: int, groups: int, scaling: float,
    out: Array,
) -> None:  # fmt: skip
    """Stores a token of each row in its slot of ``keys`` and ``values [C, P, G d]`` and attends to all up to it."""
    size = out.shape[1] // heads
    weight = np.empty(keys.shape[1], np.float32)
    factor = np.float32(scaling)
    wide = groups * size
    for b in range(len(slot)):
        t, row = place[b], qkv[b]
        own_keys, own_values = keys[slot[b]], values[slot[b]]
        own_keys[t, :] = row[heads * size : heads * size + wide]
        own_values[t, :] = row[heads * size + wide :]
        for h in range(heads):
            first = h // (heads // groups) * size
            query = row[h * size : (h + 1) * size]
            for j in range(t + 1):
                key = own_keys[j, first : first + size]
                dot = np.float32(0.0)
                for i in range(size):
                    dot += query[i] * key[i]
                weight[j] = dot * factor
            _, total = _softmax(weight, t + 1)
            share = np.float32(1.0) / total
            mixed = out[b, h * size : (h + 1) * size]
            mixed[:] = 0.0
            for j in range(t + 1):
                _add_scaled(mixed, weight[j] * share, own_values[j, first : first + size])


@njit(cache=True, fastmath=FAST)
def swiglu_forward(gate_up: Array, out: Array) -> None:
    """Writes ``out [M, F] = silu(gate) * up`` of ``gate_up [M, 2F]``."""
    rows, size = out.shape
    one = np.float32(1.0)
    for m in range(rows):
        gate, up, here = gate_up[m, :size], gate_up[m, size:], out[m]
        for i in range(size):  # a loop of its own is compiled to work on several at a time
            here[i] = _exp(-gate[i])
        for i in range(size):
            here[i] = gate[i] / (one + here[i]) * up[i]


@njit(cache=True, fastmath=FAST)
def swiglu_backward(gate_up: Array, by_out: Array, by_gate_up: Array) -> None:
    """Writes the gradient ``by_gate_up [M, 2F]``."""
    rows, size = by_out.shape
    one = np.float32(1.0)
    for m in range(rows):
        gate, up, given = gate_up[m, :size], gate_up[m, size:], by_out[m]
        by_gate, by_up = by_gate_up[m, :size], by_gate_up[m, size:]
        for i in range(size):
            by_up[i] = _exp(-gate[i])
        for i in range(size):
            x, d = gate[i], given[i]
            s = one / (one + by_up[i])
            by_gate[i] = d * up[i] * s * (one + x * (one - s))
            by_up[i] = d * x * s


@njit(cache=True)
def continues(contexts: Array, kept: Array, lengths: Array, rows: Array) -> bool:
    """Finds which kept row each context ``[B, L]`` continues by one token, in order; False if one continues none.

    Args:
        contexts: padded with -1 on the right.
        kept: the contexts of the last step ``[C, L]``.
        lengths: their lengths ``[C]``.
        rows: ``[B] int64``, written.
    """
    width, at = contexts.shape[1], 0
    for b in range(len(contexts)):
        while at < len(kept):
            n = lengths[at]
            same = n < width and contexts[b, n] >= 0 and (n + 1 == width or contexts[b, n + 1] < 0)
            i = 0
            while same and i < n:
                same = contexts[b, i] == kept[at, i]
                i += 1
            if same:
                break
            at += 1
        if at == len(kept):
            return False
        rows[b] = at
        at += 1
    return True
