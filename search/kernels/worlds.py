"""The worlds that whole searches run in, inside their kernel: a closed tree, or a compiled model.

A world says two things: how a search begins at root b, and how a node grows below a slot. Both return 0 or what is
wrong. Which of the functions below is meant follows from the type of `world` when the kernel is compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload, typeof_impl

from treegym.search.kernels.codes import MODE_PLAIN, MODE_RAW, NOTHING_WRONG, RAISED, UNUSABLE_NUMBER
from treegym.search.kernels.model import ModelWorld, call_model
from treegym.search.kernels.numeric import INLINED, finite, inlined, unusable
from treegym.search.kernels.simd.fill import all_true, fill_eight
from treegym.search.kernels.simd.rows import WIDE
from treegym.search.kernels.walk import attach, fill_dense, finish_priors
from treegym.search.tree import SOLVED, TERMINAL

__all__ = ["ClosedWorld", "begin", "grow"]

# What is wrong in a closed tree comes as -1 - (node * PER_NODE + code); in a model as one of `codes`.
PER_NODE, STRUCTURE, NUMBERS = 2, 0, 1


class ClosedWorld(NamedTuple):
    """A closed tree and its judgement, as flat arrays; the children of a node stand side by side."""

    first_child: np.ndarray  # [M] int32, -1 where there are no children
    child_count: np.ndarray  # [M] uint16
    terminal: np.ndarray  # [M] bool
    reward: np.ndarray  # [M] float32, credited on entering the node
    prior_logits: np.ndarray  # [M] float32, of the node after its parent
    value: np.ndarray  # [M] float32, the evaluator's estimate of what comes after the node


# One type for all closed trees: arrays locked against writing, as those of a file are, would be others.
_CLOSED_WORLD = types.NamedTuple(
    [types.Array(kind, 1, "C") for kind in (types.int32, types.uint16, types.boolean, *[types.float32] * 3)],
    ClosedWorld,
)


@typeof_impl.register(ClosedWorld)
def _type_of_closed_world(world: ClosedWorld, context: Any) -> Any:
    return _CLOSED_WORLD


def begin(mode: int, tree: Any, place: Any, desk: Any, world: Any, starts: Any, b: int) -> Any:
    """Plants the root of search b in the empty tree; returns 0 or what is wrong. `mode` as in `fill_dense`.

    `place` says what the nodes stand for: the nodes of a closed tree [N] int32, or the states of a model [N, D].
    """
    raise NotImplementedError("called from kernels only")


def grow(mode: int, tree: Any, place: Any, desk: Any, world: Any, node: Any, slot: Any) -> Any:
    """Attaches the child below `slot` of `node`; returns 0 or what is wrong, and the evaluations it took."""
    raise NotImplementedError("called from kernels only")


@overload(begin, jit_options=INLINED)
def _begin(mode, tree, place, desk, world, starts, b):
    return {ClosedWorld: _closed_begin, ModelWorld: _model_begin}[world.instance_class]


@overload(grow, jit_options=INLINED)
def _grow(mode, tree, place, desk, world, node, slot):
    return {ClosedWorld: _closed_grow, ModelWorld: _model_grow}[world.instance_class]


@inlined
def _open(mode, tree, world, flat, new):
    """Fills the slots of node `new`, which is `flat` in the world; returns what is wrong there, if anything."""
    first = np.int64(world.first_child[flat])
    width = np.int64(world.child_count[flat])
    if width == 0:
        tree.status[new] = np.uint8(
            TERMINAL | SOLVED
        )  # a frontier node: nothing to choose, worth what the evaluator says
        return NOTHING_WRONG
    if first < 0 or first + width > len(world.first_child) or width > tree.prior.shape[1]:
        return -1 - (flat * PER_NODE + STRUCTURE)
    eight = mode == MODE_PLAIN and tree.prior.shape[1] == WIDE and first + WIDE <= len(world.prior_logits)
    if eight and finite(world.value[flat]) and fill_eight(tree, new, world.prior_logits, first, width):
        return NOTHING_WRONG
    high = np.float32(-np.inf)
    prior, logits = tree.prior[new], world.prior_logits[first : first + width]
    wrong = 0
    if new == 0:  # slots are actions here, and only the root's are looked up
        for k in range(width):
            tree.action[0, k] = k
    for k in range(width):
        logit = logits[k]
        wrong += unusable(logit)
        prior[k] = logit
        high = max(high, logit)
    if wrong > 0 or high == np.float32(-np.inf) or not finite(world.value[flat]):
        return -1 - (flat * PER_NODE + NUMBERS)
    finish_priors(tree, new, width, high, mode & MODE_RAW)
    return NOTHING_WRONG


def _closed_begin(mode, tree, place, desk, world, starts, b):
    flat = np.int64(starts[b])
    new = attach(tree, -1, 0, np.float32(0.0), world.value[flat], False)
    place[new] = flat
    return _open(mode, tree, world, flat, new)


def _closed_grow(mode, tree, place, desk, world, node, slot):
    flat = np.int64(world.first_child[place[node]]) + slot
    ends = world.terminal[flat]
    new = attach(tree, node, slot, world.reward[flat], world.value[flat], ends)
    place[new] = flat
    if not finite(world.reward[flat]):
        return -1 - (flat * PER_NODE + NUMBERS), 0
    if ends:
        return NOTHING_WRONG, 0
    return _open(mode, tree, world, flat, new), 1


def _model_begin(mode, tree, place, desk, world, starts, b):
    for d in range(place.shape[1]):
        place[0, d] = starts.states[b, d]
    new = attach(tree, -1, 0, np.float32(0.0), starts.value[b], False)
    return fill_dense(tree, new, starts.logits[b], starts.legal[b], mode)


def _model_grow(mode, tree, place, desk, world, node, slot):
    logits, legal, told = desk.logits, desk.legal, desk.told
    new = np.int64(tree.size[0])
    for a in range(len(legal)):
        legal[a] = True
    told[2] = np.float32(0.0)
    action = np.int64(tree.action[node, slot])
    if call_model(world.entry, world.params, place, np.int64(node), action, new, logits, legal, told) != 0:
        return RAISED, 0
    ends = told[2] > np.float32(0.0)
    if not (finite(told[0]) and (ends or finite(told[1]))):
        return UNUSABLE_NUMBER, 0
    attach(tree, node, slot, told[0], told[1], ends)
    if ends:
        return NOTHING_WRONG, 0
    eight = mode == MODE_PLAIN and tree.prior.shape[1] == WIDE and all_true(legal)
    if eight and fill_eight(tree, new, logits, 0, len(legal)):
        return NOTHING_WRONG, 1
    return fill_dense(tree, new, logits, legal, mode), 1
