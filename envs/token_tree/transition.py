"""The one transition function of TokenTree, for one lane or thousands: look-up in flat arrays, compiled.

The single environment and the native vector environment both step through these kernels, so they cannot differ.
Letters: B lanes, N nodes, K actions, F features of a child, S features of the state, R roots to choose from.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from treegym.tree.columns import CONTEXT_SIZE

__all__ = [
    "CELL",
    "CHEAP_STATE",
    "advance",
    "advance_and_observe",
    "begin_episodes",
    "observe",
    "observe_tokens",
    "random_root",
]

CHEAP_STATE = 3  # depth, budget left, path log-probability; embeddings of prompt and context follow
FAR, NEAR = 16, 3  # how many lanes ahead nodes and then their children's features are asked for
LINE = 16  # float32 numbers in a cache line
AHEAD = 16 * LINE  # at most so many numbers are asked for per lane: more would push out what is waited for

# What stepping needs of a node, side by side: 64 bytes, so that a node is one visit to memory.
CELL = np.dtype(
    [
        ("first", np.int32),  # first child
        ("count", np.uint16),  # children
        ("end", np.bool_),  # an episode ends here
        ("right", np.bool_),  # a correct end
        ("path_logp", np.float32),  # primary's log-probability of the whole path
        ("root", np.int32),  # the node at the top
        ("pays", np.float64),  # reward for coming here
        ("root_index", np.int32),  # which prompt that is
        ("failed", np.bool_),  # a reward term failed here
        ("context", np.int8, (CONTEXT_SIZE,)),  # embedding of prompt and path
        ("spare", np.int8, (8,)),  # fills the line
    ],
    align=True,
)


_READ, _KEEP, _DATA = 0, 3, 1  # arguments of LLVM's prefetch: for reading, into every cache level, the data cache


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Asks for the cache line of ``array[index]``; an index past the end is harmless, nothing is read.

    Lanes are on nodes all over a tree that fits in no cache, so a step waits for memory more than it computes. Asking
    for the next lanes' nodes while working on this lane's made stepping five times faster on a million nodes.
    """
    signature = types.void(array, index)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte = ir.IntType(8).as_pointer()
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [address, *(ir.Constant(number, value) for value in (_READ, _KEEP, _DATA))])
        return context.get_dummy_value()

    return signature, generate


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
    actions: Any, cells: Any, terms: Any, penalty: Any, limit: Any, next_step_reset: Any,
    pool: Any, root_node: Any, key: Any, episode: Any, node: Any, steps: Any, done: Any,
    reward: Any, terminated: Any, truncated: Any, illegal: Any, success: Any, vector: Any, root: Any, failed: Any,
) -> Any:  # fmt: skip
    """Moves every lane one step: writes the lanes' state and the step's outcome in place.

    A lane that was done either begins its next episode (``next_step_reset``) or stays where it is. An action that
    names no child pays a penalty and uses up budget, and moves nothing.
    """
    lanes, parts = len(node), np.uint64(vector.shape[1])
    paid, given = terms.ravel(), vector.ravel()
    for b in range(lanes):  # where to: all lanes first, so that memory for the second loop is on its way
        reward[b] = 0.0
        terminated[b] = False
        truncated[b] = False
        illegal[b] = False
        success[b] = False
        if done[b]:
            if next_step_reset:
                node[b] = root_node[pool[random_root(key[b], episode[b], len(pool))]]
                episode[b] += 1
                steps[b] = -1  # the step that resets is not a step of the new episode
        else:
            here = cells[node[b]]
            if actions[b] < 0 or actions[b] >= here.count:
                illegal[b] = True
            else:
                node[b] = here.first + np.int64(actions[b])
        prefetch(cells, np.uint64(node[b]))
        prefetch(paid, np.uint64(node[b]) * parts)
    for b in range(lanes):
        row, source = np.uint64(b) * parts, np.uint64(node[b]) * parts
        if done[b] or illegal[b]:
            for t in range(parts):
                given[row + t] = np.float32(0.0)
        else:
            for t in range(parts):
                given[row + t] = paid[source + t]
        here = cells[node[b]]
        root[b] = here.root_index
        failed[b] = here.failed and not illegal[b]
        if done[b]:
            if next_step_reset:
                steps[b] = 0
                done[b] = False
            continue
        steps[b] += 1
        if illegal[b]:
            reward[b] = -penalty
        else:
            reward[b] = here.pays
            terminated[b] = here.end
            success[b] = here.right
        # A node without children that is not an end cannot be left: the tree's own depth limit.
        truncated[b] = not terminated[b] and (steps[b] >= limit or here.count == 0)
        done[b] = terminated[b] or truncated[b]


@numba.njit(cache=True)
def observe(
    node: Any, steps: Any, cells: Any, features: Any, width: Any, floor: Any, max_tokens: Any, out: Any, legal: Any,
) -> Any:  # fmt: skip
    """Writes what each lane sees: ``out [B * D] float32`` and ``legal [B * K] int8``, a lane after the other.

    ``features`` is the flat table ``[N * width]``: the children of a node are one stretch of it. Indices are unsigned,
    which spares the compiler the question whether they count from the end, and lets it copy whole vectors.
    """
    lanes = len(node)
    actions, size = len(legal) // lanes, len(out) // lanes
    inverse, scale = np.float32(1.0 / max_tokens), np.float32(1.0 / 127.0)
    dims, stride = np.uint64(CONTEXT_SIZE), np.uint64(width)
    for b in range(lanes):
        if b + FAR < lanes:
            prefetch(cells, np.uint64(node[b + FAR]))
        if b + NEAR < lanes:
            next_ = cells[node[b + NEAR]]
            prefetch(cells, np.uint64(next_.root))
            ahead = np.uint64(next_.first) * stride
            for i in range(np.uint64(0), min(np.uint64(next_.count) * stride, np.uint64(AHEAD)), np.uint64(LINE)):
                prefetch(features, ahead + i)
        here = cells[node[b]]
        root = cells[here.root]
        at = np.uint64(b * size)
        spent = min(np.float32(steps[b]) * inverse, np.float32(1.0))
        out[at] = spent
        out[at + np.uint64(1)] = np.float32(1.0) - spent
        out[at + np.uint64(2)] = max(here.path_logp / np.float32(max(steps[b], 1)), np.float32(floor))
        at += np.uint64(CHEAP_STATE)
        for i in range(dims):
            out[at + i] = np.float32(root.context[i]) * scale
        at += dims
        for i in range(dims):
            out[at + i] = np.float32(here.context[i]) * scale
        at += dims
        # At an end nothing can be chosen any more; one dummy action stays legal, as the contract asks.
        count = np.uint64(0) if here.end else np.uint64(here.count)
        stretch = count * stride
        start = np.uint64(here.first) * stride if count else np.uint64(0)
        for i in range(stretch):
            out[at + i] = features[start + i]
        for i in range(stretch, np.uint64(size) - np.uint64(CHEAP_STATE) - dims - dims):
            out[at + i] = np.float32(0.0)
        row = np.uint64(b * actions)
        for k in range(np.uint64(actions)):
            legal[row + k] = k < count
        if count == 0:
            legal[row] = 1


@numba.njit(cache=True)
def advance_and_observe(
    actions: Any, cells: Any, features: Any, width: Any, terms: Any, penalty: Any, limit: Any, next_step_reset: Any,
    pool: Any, root_node: Any, key: Any, episode: Any, node: Any, steps: Any, done: Any,
    reward: Any, terminated: Any, truncated: Any, illegal: Any, success: Any, vector: Any, root: Any, failed: Any,
    floor: Any, max_tokens: Any, out: Any, legal: Any,
) -> Any:  # fmt: skip
    """Does both in one call: entering compiled code costs as much as a step does."""
    advance(
        actions, cells, terms, penalty, limit, next_step_reset, pool, root_node, key, episode, node, steps, done,
        reward, terminated, truncated, illegal, success, vector, root, failed,
    )  # fmt: skip
    observe(node, steps, cells, features, width, floor, max_tokens, out, legal)


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
