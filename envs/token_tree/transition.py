"""The one transition function of TokenTree, for one lane or thousands: look-up in flat arrays, compiled.

The single environment and the native vector environment both step through these kernels, so they cannot differ.
Letters: B lanes, N nodes, K actions, F features of a child, S features of the state, R roots to choose from.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from treegym.envs.token_tree.columns import CONTEXT_SIZE

__all__ = ["CHEAP_STATE", "advance", "begin_episodes", "observe", "observe_tokens", "random_root"]

CHEAP_STATE = 3  # depth, budget left, path log-probability; embeddings of prompt and context follow


@numba.njit(cache=True, inline="always")
def random_root(key: Any, episode: Any, count: Any) -> Any:
    """Returns which of `count` roots the lane's next episode starts at (splitmix64 of its key and episode number)."""
    z = np.uint64(key) + np.uint64(episode) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(z % np.uint64(count))


@numba.njit(cache=True)
def begin_episodes(
    which: Any, forced: Any, pool: Any, root_node: Any, key: Any, episode: Any, node: Any, steps: Any, done: Any
) -> Any:
    """Starts an episode in every lane of `which`, at the forced root or, where that is -1, a random one of the pool."""
    for b in range(len(node)):
        if which[b]:
            chosen = forced[b] if forced[b] >= 0 else pool[random_root(key[b], episode[b], len(pool))]
            node[b] = root_node[chosen]
            episode[b] += 1
            steps[b] = 0
            done[b] = False


@numba.njit(cache=True)
def advance(
    actions: Any,
    first_child: Any,
    child_count: Any,
    ends: Any,
    pays: Any,
    penalty: Any,
    limit: Any,
    next_step_reset: Any,
    pool: Any,
    root_node: Any,
    key: Any,
    episode: Any,
    node: Any,
    steps: Any,
    done: Any,
    reward: Any,
    terminated: Any,
    truncated: Any,
    illegal: Any,
) -> Any:
    """Moves every lane one step: writes the lanes' state and the step's outcome in place.

    A lane that was done either begins its next episode (``next_step_reset``) or stays where it is. An action that
    names no child pays a penalty and uses up budget, and moves nothing.
    """
    for b in range(len(node)):
        terminated[b] = False
        truncated[b] = False
        illegal[b] = False
        reward[b] = 0.0
        if done[b]:
            if next_step_reset:
                node[b] = root_node[pool[random_root(key[b], episode[b], len(pool))]]
                episode[b] += 1
                steps[b] = 0
                done[b] = False
            continue
        here = node[b]
        steps[b] += 1
        if actions[b] < 0 or actions[b] >= child_count[here]:
            illegal[b] = True
            reward[b] = -penalty
        else:
            here = first_child[here] + np.int32(actions[b])
            node[b] = here
            reward[b] = pays[here]
            terminated[b] = ends[here]
        # A node without children that is no end cannot be left: the tree's own depth limit.
        truncated[b] = not terminated[b] and (steps[b] >= limit or child_count[here] == 0)
        done[b] = terminated[b] or truncated[b]


@numba.njit(cache=True)
def observe(
    node: Any,
    steps: Any,
    first_child: Any,
    child_count: Any,
    features: Any,
    path_logp: Any,
    context: Any,
    root_node: Any,
    root_index: Any,
    floor: Any,
    max_tokens: Any,
    ends: Any,
    observations: Any,
    mask: Any,
) -> Any:
    """Writes what each lane sees: ``observations [B, D] float32`` and ``mask [B, K] int8``."""
    actions = mask.shape[1]
    width = features.shape[1]
    flat = features.ravel()  # the children of a node are one stretch of it
    cut = CHEAP_STATE + 2 * CONTEXT_SIZE
    inverse = np.float32(1.0 / max_tokens)
    scale = np.float32(1.0 / 127.0)
    for b in range(len(node)):
        here = node[b]
        taken = steps[b]
        row = observations[b]
        row[0] = min(taken * inverse, np.float32(1.0))
        row[1] = max(np.float32(1.0) - taken * inverse, np.float32(0.0))
        row[2] = max(path_logp[here] / max(taken, 1), np.float32(floor))
        root = root_node[root_index[here]]
        for i in range(CONTEXT_SIZE):
            row[CHEAP_STATE + i] = context[root, i] * scale
            row[CHEAP_STATE + CONTEXT_SIZE + i] = context[here, i] * scale
        # At an end nothing can be chosen any more; one dummy action stays legal, as the contract asks.
        count = 0 if ends[here] else np.int64(child_count[here])
        stretch = count * width
        base = np.int64(first_child[here]) * width if count else 0
        for i in range(stretch):
            row[cut + i] = flat[base + i]
        for i in range(cut + stretch, len(row)):
            row[i] = 0.0
        for k in range(count):
            mask[b, k] = 1
        for k in range(count, actions):
            mask[b, k] = 0
        if count == 0:
            mask[b, 0] = 1


@numba.njit(cache=True)
def observe_tokens(
    node: Any,
    first_child: Any,
    child_count: Any,
    parent: Any,
    token: Any,
    depth: Any,
    root_index: Any,
    prompt_start: Any,
    prompt_tokens: Any,
    context: Any,
    children: Any,
) -> Any:
    """Writes the token ids behind each lane ``context [B, L] int32`` and ahead of it ``children [B, K]``; -1 pads."""
    for b in range(len(node)):
        here = node[b]
        root = root_index[here]
        begin = prompt_start[root]
        length = prompt_start[root + 1] - begin
        context[b, :length] = prompt_tokens[begin : begin + length]
        end = length + depth[here]
        context[b, end:] = -1
        above = here
        for i in range(end - 1, length - 1, -1):
            context[b, i] = token[above]
            above = parent[above]
        count = child_count[here]
        for k in range(children.shape[1]):
            children[b, k] = token[first_child[here] + k] if k < count else -1
