"""The one transition function of CandidateSelection, for one lane or thousands: look-up in flat arrays, compiled.

The single environment and the native vector environment both step through these kernels, so they cannot differ.
The state of a lane is a row of integers: see the columns below.
Letters: B lanes, R roots, N records, C candidates, K = C + 1 actions, F features of a candidate, S of the state.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from treegym.envs.token_tree.transition import random_root

__all__ = [
    "BEST", "MEASURED", "NODE", "ROOT", "STALE", "STATE", "STEPS", "advance", "begin", "observe", "restart",
]  # fmt: skip

ROOT, STEPS, MEASURED, BEST, STALE = range(5)  # MEASURED: a bit for each candidate; BEST: -1 for none yet
NODE = MEASURED  # the pipeline's: the record that the ensemble built so far is
STATE = 5  # columns of the state
PATIENCE = 2  # measurements in a row without improvement after which `convergence` ends an episode


@numba.njit(cache=True, inline="always")
def _start(state: Any, root: Any, node: Any, best: Any) -> None:
    state[ROOT] = root
    state[STEPS] = 0
    state[MEASURED] = node
    state[BEST] = best
    state[STALE] = 0


@numba.njit(cache=True)
def begin(which: Any, forced: Any, pool: Any, first: Any, key: Any, episode: Any, state: Any, done: Any) -> None:
    """Starts an episode in every lane of `which`, at the forced root or, where that is -1, a random one of the pool.

    ``first [R] int64`` is what the third column starts as: nothing measured, or the pipeline's empty ensemble.
    """
    for b in range(len(done)):
        if which[b]:
            root = forced[b] if forced[b] >= 0 else pool[random_root(key[b], episode[b], len(pool))]
            _start(state[b], root, first[root], -1)
            episode[b] += 1
            done[b] = False


@numba.njit(cache=True, inline="always")
def restart(b: Any, state: Any, pool: Any, first: Any, key: Any, episode: Any, done: Any) -> None:
    """Begins lane b's next episode, at a random root of the pool."""
    root = pool[random_root(key[b], episode[b], len(pool))]
    _start(state[b], root, first[root], -1)
    episode[b] += 1
    done[b] = False


@numba.njit(cache=True)
def advance(
    actions: Any,
    candidates: Any,  # [R, C] int64 records, -1 where there is none
    score: Any,  # [N, 3] float64
    fitness: Any,  # [N] float64
    base: Any,  # [3] float64, scores of the original
    base_fitness: Any,
    goal: Any,  # [R] float64, the fitness from which a commit counts as success
    cost: Any,
    penalty: Any,
    good_enough: Any,  # performance threshold; infinite: off
    convergence: Any,  # convergence threshold; negative: off
    limit: Any,
    next_step_reset: Any,
    pool: Any,
    first: Any,
    key: Any,
    episode: Any,
    state: Any,
    done: Any,
    reward: Any,
    vector: Any,  # [B, 4] float32: gains in speed, memory and accuracy score, and the cost
    weights: Any,  # [3] float64
    terminated: Any,
    truncated: Any,
    illegal: Any,
    success: Any,
) -> None:
    """Moves every lane one step. The first choice of a candidate measures it, the second commits to it.

    The last action keeps the original. An action that names no candidate pays a penalty and moves nothing. What is
    written comes as zeros.
    """
    count = candidates.shape[1]
    for b in range(len(done)):
        if done[b]:
            if next_step_reset:
                restart(b, state, pool, first, key, episode, done)
            continue
        lane = state[b]
        root = lane[ROOT]
        action = actions[b]
        lane[STEPS] += 1
        chosen: Any = np.int64(-2)  # what is committed to: a record, or -1 for the original
        if action == count:
            chosen = -1
        elif action < 0 or action > count or candidates[root, action] < 0:
            illegal[b] = True
            reward[b] = -penalty
        elif lane[MEASURED] & (np.int64(1) << action):
            chosen = candidates[root, action]
        else:
            lane[MEASURED] |= np.int64(1) << action
            vector[b, 3] = -cost
            reward[b] = -cost
            record = candidates[root, action]
            best = base_fitness if lane[BEST] < 0 else fitness[candidates[root, lane[BEST]]]
            lane[STALE] = 0 if fitness[record] - best > convergence else lane[STALE] + 1
            if fitness[record] > best:
                lane[BEST] = action
            if fitness[record] >= good_enough or (convergence >= 0.0 and lane[STALE] >= PATIENCE):
                chosen = candidates[root, lane[BEST]] if lane[BEST] >= 0 else -1
        if chosen > -2:
            value = base_fitness if chosen < 0 else fitness[chosen]
            for i in range(3):
                gain = 0.0 if chosen < 0 else score[chosen, i] - base[i]
                vector[b, i] = gain
                reward[b] += weights[i] * gain
            terminated[b] = True
            success[b] = value >= goal[root]
        truncated[b] = not terminated[b] and lane[STEPS] >= limit
        done[b] = terminated[b] or truncated[b]


@numba.njit(cache=True)
def observe(
    state: Any,
    candidates: Any,
    module_row: Any,  # [R, S0] float32
    rows: Any,  # [2, N, F] float32: what a candidate looks like before and after it is measured
    original: Any,  # [F] float32
    best_column: Any,
    gain: Any,  # [N] float32, gain in fitness
    limit: Any,
    observations: Any,
    mask: Any,
) -> None:
    """Writes what each lane sees: ``observations [B, S + K F] float32`` and ``mask [B, K] int8``."""
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
