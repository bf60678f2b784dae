"""What each lane sees, written by compiled kernels into flat rows.

Letters: B lanes, R roots, N records, C candidates, K = C + 1 actions, F features of a candidate, S of the state.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from treegym.envs.selection.transition import BEST, MEASURED, NODE, ROOT, STEPS

__all__ = ["observe_ensemble", "observe_set"]


@numba.njit(cache=True)
def observe_set(
    state: Any,  # [B, STATE] int64
    candidates: Any,  # [R, C] int64
    module_row: Any,  # [R, S0] float32
    rows: Any,  # [2, N, F] float32: what a candidate looks like before and after it is measured
    original: Any,  # [F] float32
    best_column: Any,
    gain: Any,  # [N] float32, gain in fitness
    limit: Any,
    observations: Any,
    mask: Any,
) -> None:
    """Writes what lanes of a `SelectionWorld` see: ``observations [B, S + K F] float32``, ``mask [B, K] int8``."""
    count = candidates.shape[1]
    fixed = module_row.shape[1]
    width = rows.shape[2]
    inverse = np.float32(1.0 / limit)
    share = np.float32(1.0 / count)
    for b in range(len(state)):
        lane = state[b]
        root = lane[ROOT]
        out = observations[b]
        for i in range(fixed):
            out[i] = module_row[root, i]
        best = lane[BEST]
        bits = lane[MEASURED]
        measured = 0
        at = fixed + 3
        for c in range(count):
            record = candidates[root, c]
            if record < 0:
                for i in range(width):
                    out[at + i] = 0.0
                mask[b, c] = 0
            else:
                seen = (bits >> c) & 1
                measured += seen
                source = rows[seen, record]
                for i in range(width):
                    out[at + i] = source[i]
                if best == c:
                    out[at + best_column] = 1.0
                mask[b, c] = 1
            at += width
        for i in range(width):
            out[at + i] = original[i]
        if best < 0:
            out[at + best_column] = 1.0
        mask[b, count] = 1
        out[fixed] = max(np.float32(1.0) - lane[STEPS] * inverse, np.float32(0.0))
        out[fixed + 1] = measured * share
        out[fixed + 2] = np.float32(0.0) if best < 0 else gain[candidates[root, best]]


@numba.njit(cache=True)
def observe_ensemble(
    state: Any, rows: Any, legal: Any, steps_column: Any, limit: Any, observations: Any, mask: Any
) -> None:
    """Writes what lanes of a `PipelineWorld` see: the record's row, with the steps left filled in, and its mask."""
    size = rows.shape[1]
    inverse = np.float32(1.0 / limit)
    for b in range(len(state)):
        here = state[b, NODE]
        for i in range(size):
            observations[b, i] = rows[here, i]
        observations[b, steps_column] = max(np.float32(1.0) - state[b, STEPS] * inverse, np.float32(0.0))
        for k in range(legal.shape[1]):
            mask[b, k] = legal[here, k]
