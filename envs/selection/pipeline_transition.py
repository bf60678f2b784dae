"""The transition function of OptimizationPipeline: a walk from record to record, compiled.

Letters: B lanes, R roots, N records (ensembles), K actions (strategies, and to stop), D size of an observation.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from treegym.envs.selection.transition import NODE, ROOT, STEPS, restart

__all__ = ["advance", "observe"]


@numba.njit(cache=True)
def advance(
    actions: Any,
    following: Any,  # [N, K - 1] int64: the record after adding a strategy, -1 where there is none
    score: Any,  # [N, 3] float64
    fitness: Any,  # [N] float64
    goal: Any,  # [R] float64
    cost: Any,
    penalty: Any,
    good_enough: Any,
    limit: Any,
    next_step_reset: Any,
    pool: Any,
    first: Any,
    key: Any,
    episode: Any,
    state: Any,
    done: Any,
    reward: Any,
    vector: Any,
    weights: Any,
    terminated: Any,
    truncated: Any,
    illegal: Any,
    success: Any,
) -> None:
    """Moves every lane one step: adds a strategy, or stops with what there is. What is written comes as zeros."""
    stop = following.shape[1]
    for b in range(len(done)):
        if done[b]:
            if next_step_reset:
                restart(b, state, pool, first, key, episode, done)
            continue
        lane = state[b]
        here = lane[NODE]
        action = actions[b]
        lane[STEPS] += 1
        if action == stop:
            terminated[b] = True
        elif action < 0 or action > stop or following[here, action] < 0:
            illegal[b] = True
            reward[b] = -penalty
        else:
            there = following[here, action]
            lane[NODE] = there
            vector[b, 3] = -cost
            reward[b] = -cost
            for i in range(3):
                gain = score[there, i] - score[here, i]
                vector[b, i] = gain
                reward[b] += weights[i] * gain
            terminated[b] = fitness[there] >= good_enough
        if terminated[b]:
            success[b] = fitness[lane[NODE]] >= goal[lane[ROOT]]
        truncated[b] = not terminated[b] and lane[STEPS] >= limit
        done[b] = terminated[b] or truncated[b]


@numba.njit(cache=True)
def observe(state: Any, rows: Any, legal: Any, steps_column: Any, limit: Any, observations: Any, mask: Any) -> None:
    """Writes what each lane sees: its record's row ``[D]``, with the steps left filled in, and its mask ``[K]``."""
    size = rows.shape[1]
    inverse = np.float32(1.0 / limit)
    for b in range(len(state)):
        here = state[b, NODE]
        for i in range(size):
            observations[b, i] = rows[here, i]
        observations[b, steps_column] = max(np.float32(1.0) - state[b, STEPS] * inverse, np.float32(0.0))
        for k in range(legal.shape[1]):
            mask[b, k] = legal[here, k]
