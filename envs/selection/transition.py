"""The transition functions of both environments, for one lane or thousands: look-up in flat arrays, compiled.

The single environment and the native batch both step through these kernels, so they cannot differ. The state of a lane
is a row of integers: see the columns below. A kernel takes the fields of its world, of the episodes and of the outcome,
unpacked in their order: tuples would cost a third of the speed.
Letters: B lanes, R roots, N records, C candidates, K actions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from treegym.envs.token_tree.transition import random_root

__all__ = [
    "BEST", "MEASURED", "NODE", "ROOT", "STALE", "STATE", "STEPS", "EnsembleCells", "Episodes", "SetCells",
    "advance_ensemble", "advance_set", "begin",
]  # fmt: skip

ROOT, STEPS, MEASURED, BEST, STALE = range(5)  # MEASURED: one bit per candidate; BEST: -1 for none yet
NODE = MEASURED  # the pipeline's: the record that the ensemble built so far is
STATE = 5  # columns of the state
PATIENCE = 2  # measurements in a row without improvement after which `convergence` ends an episode
NOTHING, ORIGINAL = -2, -1  # what a step commits to, beside records


class Episodes(NamedTuple):
    """Where every lane stands, and what its next start is drawn from."""

    state: np.ndarray  # [B, STATE] int64
    done: np.ndarray  # [B] bool
    key: np.ndarray  # [B] uint64
    episode: np.ndarray  # [B] int64


class SetCells(NamedTuple):
    """A `SelectionWorld` as its kernel reads it."""

    candidates: np.ndarray  # [R, C] int64 records, -1 where there is none
    score: np.ndarray  # [N, 3] float64
    fitness: np.ndarray  # [N] float64
    weights: np.ndarray  # [3] float64
    base: np.ndarray  # [3] float64, scores of the original
    base_fitness: float
    goal: np.ndarray  # [R] float64, the fitness from which a commit counts as success
    cost: float
    penalty: float
    good_enough: float  # performance threshold; infinite: off
    convergence: float  # convergence threshold; negative: off
    pool: np.ndarray  # [n] int64, roots that episodes start at
    first: np.ndarray  # [R] int64, what the third column starts as: nothing measured


class EnsembleCells(NamedTuple):
    """A `PipelineWorld` as its kernel reads it."""

    following: np.ndarray  # [N, K - 1] int64: the record after adding a strategy, -1 where there is none
    score: np.ndarray  # [N, 3] float64
    fitness: np.ndarray  # [N] float64
    weights: np.ndarray  # [3] float64
    goal: np.ndarray  # [R] float64
    cost: float
    penalty: float
    good_enough: float
    pool: np.ndarray  # [n] int64
    first: np.ndarray  # [R] int64, the empty ensemble


@numba.njit(cache=True, inline="always")
def _start(b: Any, root: Any, first: Any, state: Any, done: Any, episode: Any) -> None:
    state[b, ROOT] = root
    state[b, STEPS] = 0
    state[b, MEASURED] = first[root]
    state[b, BEST] = -1
    state[b, STALE] = 0
    episode[b] += 1
    done[b] = False


@numba.njit(cache=True)
def begin(which: Any, forced: Any, pool: Any, first: Any, state: Any, done: Any, key: Any, episode: Any) -> None:
    """Starts an episode in every lane of `which`, at the forced root or, where that is -1, a random one of the pool."""
    for b in range(len(done)):
        if which[b]:
            root = forced[b] if forced[b] >= 0 else pool[random_root(key[b], episode[b], len(pool))]
            _start(b, root, first, state, done, episode)


@numba.njit(cache=True)
def _restart(b: Any, pool: Any, first: Any, state: Any, done: Any, key: Any, episode: Any) -> None:
    """Begins lane b's next episode, at a random root of the pool."""
    _start(b, pool[random_root(key[b], episode[b], len(pool))], first, state, done, episode)


@numba.njit(cache=True)
def advance_set(
    actions: Any, limit: Any, next_step_reset: Any,
    candidates: Any, score: Any, fitness: Any, weights: Any, base: Any, base_fitness: Any, goal: Any, cost: Any,
    penalty: Any, good_enough: Any, convergence: Any, pool: Any, first: Any,
    state: Any, done: Any, key: Any, episode: Any,
    reward: Any, vector: Any, terminated: Any, truncated: Any, illegal: Any, success: Any,
) -> None:  # fmt: skip
    """Moves every lane one step: the first choice of a candidate measures it, the second commits to it.

    The last action keeps the original. An action that names no candidate pays a penalty and moves nothing. Lanes that
    are done begin anew (``next_step_reset``) or stand still.
    """
    count = candidates.shape[1]
    for b in range(len(done)):
        if done[b]:
            if next_step_reset:
                _restart(b, pool, first, state, done, key, episode)
            continue
        lane = state[b]
        root, action = lane[ROOT], actions[b]
        lane[STEPS] += 1
        chosen: Any = np.int64(NOTHING)
        if action == count:
            chosen = ORIGINAL
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
                chosen = candidates[root, lane[BEST]] if lane[BEST] >= 0 else ORIGINAL
        if chosen > NOTHING:
            for i in range(3):
                gain = 0.0 if chosen < 0 else score[chosen, i] - base[i]
                vector[b, i] = gain
                reward[b] += weights[i] * gain
            terminated[b] = True
            success[b] = (base_fitness if chosen < 0 else fitness[chosen]) >= goal[root]
        truncated[b] = not terminated[b] and lane[STEPS] >= limit
        done[b] = terminated[b] or truncated[b]


@numba.njit(cache=True)
def advance_ensemble(
    actions: Any, limit: Any, next_step_reset: Any,
    following: Any, score: Any, fitness: Any, weights: Any, goal: Any, cost: Any, penalty: Any, good_enough: Any,
    pool: Any, first: Any,
    state: Any, done: Any, key: Any, episode: Any,
    reward: Any, vector: Any, terminated: Any, truncated: Any, illegal: Any, success: Any,
) -> None:  # fmt: skip
    """Moves every lane one step: adds a strategy to the ensemble, or stops with what there is."""
    stop = following.shape[1]
    for b in range(len(done)):
        if done[b]:
            if next_step_reset:
                _restart(b, pool, first, state, done, key, episode)
            continue
        lane = state[b]
        here, action = lane[NODE], actions[b]
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
