"""A round of a search in one call: for worlds kept in arrays, whose evaluators take microseconds."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np

from treegym.search.kernels import batch
from treegym.search.kernels.block import block_of, words_of
from treegym.search.kernels.codes import RULE_SOFT
from treegym.search.kernels.numeric import finite, inlined, kernel
from treegym.search.kernels.walk import Root, Settings, walked
from treegym.search.tree import Nodes, allocate

__all__ = ["PROBLEM", "REFUSED", "WORDS", "Round", "Told", "Way", "pack", "turn"]

REFUSED, PROBLEM = -1, -2  # what `turn` returns where nothing was told, and where a leaf that was told has a problem


class Way(NamedTuple):
    """How the leaves were reached."""

    paths: np.ndarray  # [2, L, D] int32, nodes and slots
    lengths: np.ndarray  # [L] int32
    owners: np.ndarray  # [L] int32
    again: np.ndarray  # [L] int32, how often each was come upon while it waited


class Told(NamedTuple):
    """What became of the leaves."""

    reward: np.ndarray  # [L] float32
    terminal: np.ndarray  # [L] bool
    second: np.ndarray  # [L] bool, the second player is to move
    row: np.ndarray  # [L] int64, row of the evaluation below, -1 where there is none
    link: np.ndarray  # [L] int32
    logits: np.ndarray  # [E, A] float32
    value: np.ndarray  # [E] float32
    legal: np.ndarray  # [E, A] bool
    outcomes: np.ndarray  # [L] int32, how many outcomes a move has that was made for the first time, else 0
    first: np.ndarray  # [L] int64, where their probabilities begin
    outcome: np.ndarray  # [L] int32, which of them the leaf is
    chances: np.ndarray  # [C] float32


class Round(NamedTuple):
    """All that a round reads and writes, but for what the simulator says; a leaf per root."""

    trees: Nodes
    roots: Root
    settings: Settings
    way: Way
    budget: np.ndarray  # [B] int32
    scores: np.ndarray  # [W] float32
    waiting: np.ndarray  # [2] int64, leaves that wait, and the longest way to any so far
    problems: np.ndarray  # [B] int32
    evaluations: np.ndarray  # [B] int64
    draws: np.ndarray  # [B, 1] int64, random numbers taken before the leaves that wait
    parents: np.ndarray  # [B] int64, the states to step, as `Planner.ask` names them
    numbers: np.ndarray  # [B] int64, the names of the states that were stepped to
    row: np.ndarray  # [B] int64
    no: np.ndarray  # [B] bool, False
    none: np.ndarray  # [B] int32, 0
    unlinked: np.ndarray  # [B] int32, -1
    first: np.ndarray  # [B] int64, 0
    chances: np.ndarray  # [1] float32
    mode: int


def _like() -> Round:
    """Returns a round of no use: its dtypes and dimensions are those of any other."""
    whole, large, truth = (np.zeros(1, kind) for kind in (np.int32, np.int64, np.bool_))
    number, draws = np.zeros(1, np.float32), np.zeros((1, 1), np.int64)
    square = np.zeros((1, 1), np.int32)
    root = Root(square, np.zeros((1, 1), np.float32), square, draws, draws)
    kinds = {"int": 0, "float": 0.0, "bool": False}
    told = {name: kind.__forward_arg__ for name, kind in Settings.__annotations__.items()}
    plain: Any = {name: kinds[kind] for name, kind in told.items() if kind in kinds}
    settings = Settings(**plain, explore=number, shrink=number, halving=np.zeros((1, 1, 1), np.int32))
    way = Way(np.zeros((2, 1, 1), np.int32), whole, whole, whole)
    return Round(
        allocate(1, 1, 1), root, settings, way, whole, number, large, whole, large, draws, large, large, large, truth,
        whole, whole, large, number, 0,
    )  # fmt: skip


WORDS = words_of(_like())  # of a round's block
noted, opened = block_of(_like())


@kernel
def pack(block, round_):
    """Notes in `block` [WORDS] int64 where the arrays of a round are."""
    noted(block, round_)


@inlined
def fitting(round_, reward, ended, logits, value, legal):
    """Returns whether what was said of the leaves that wait can be told; writes which row each was judged in."""
    count = round_.waiting[0]
    if len(reward) != count or len(ended) != count:
        return False
    judged = np.int64(0)
    for i in range(count):
        if not finite(reward[i]):
            return False
        round_.row[i] = -1 if ended[i] else judged
        judged += not ended[i]
    if judged == 0:
        return True
    actions = round_.roots.before.shape[1]
    if len(value) != judged or logits.shape[0] != judged or legal.shape[0] != judged:
        return False
    if logits.shape[1] != actions or legal.shape[1] != actions:
        return False
    sound = True
    for i in range(judged):
        sound &= finite(value[i])
    return sound


@inlined
def tell(round_, reward, ended, logits, value, legal):
    """Attaches the leaves that wait, names them as `Planner.tell` does; returns how many have a problem."""
    told = Told(
        reward, ended, round_.no, round_.row, round_.unlinked, logits, value, legal,
        round_.none, round_.first, round_.none, round_.chances,
    )  # fmt: skip
    batch.scatter(round_.trees, round_.settings, 1, round_.way, told, round_.mode, round_.problems, round_.numbers)
    capacity, wrong = round_.trees.width.shape[1], 0
    for i in range(len(reward)):
        owner = round_.way.owners[i]
        round_.numbers[i] += np.int64(owner) * capacity
        round_.evaluations[owner] += round_.row[i] >= 0
        wrong += round_.problems[i] != 0
    return wrong


_NUMBERS, _TRUTHS = numba.float32, numba.boolean
_ARGUMENTS = (
    numba.int64[::1], numba.int64, numba.int32[::1], _NUMBERS[::1], _TRUTHS[::1], _NUMBERS[:, ::1], _NUMBERS[::1],
    _TRUTHS[:, ::1],
)  # fmt: skip


@functools.cache
def turn(rule: int, plain: bool) -> Any:
    """Returns the kernel for a rule that tells the leaves that wait and asks for the next.

    ``turn(block, onward, actions, reward, ended, logits, value, legal)`` returns how many leaves wait, `REFUSED` where
    what was said cannot be told as it is (then nothing was told), or `PROBLEM` where a leaf has one (then none is asked
    for). ``onward=0`` only tells. It writes into `actions` [B] what to step the parents by. An argument of another kind
    of array is a TypeError.
    """
    gather = batch.gather(rule, plain)

    @kernel
    def turn_kernel(block, onward, actions, reward, ended, logits, value, legal):
        round_ = opened(block)
        count = round_.waiting
        if count[0] > 0:
            if not fitting(round_, reward, ended, logits, value, legal):
                return REFUSED
            wrong = tell(round_, reward, ended, logits, value, legal)
            count[0] = 0
            if wrong > 0:
                return PROBLEM
        if onward == 0:
            return 0
        trees, roots, way = round_.trees, round_.roots, round_.way
        if rule == RULE_SOFT:  # the others draw nothing on their way
            for b in range(len(round_.draws)):
                round_.draws[b, 0] = roots.draws[b, 0]
        gather(trees, roots, round_.settings, round_.budget, 1, round_.scores, way, count)
        capacity, longest = trees.width.shape[1], count[1]
        for i in range(count[0]):
            owner, last = way.owners[i], way.lengths[i] - 1
            node = way.paths[0, i, last]
            round_.parents[i] = np.int64(owner) * capacity + node
            actions[i] = trees.action[owner, node, walked(np.int64(way.paths[1, i, last]))]
            longest = max(longest, np.int64(way.lengths[i]))
        count[1] = longest
        return count[0]

    turn_kernel.compile(_ARGUMENTS)
    turn_kernel.disable_compile()
    return turn_kernel
