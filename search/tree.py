"""The search tree: flat arrays, one row per node, one slot per *legal* child.

Letters: B roots, N nodes a root can hold, W slots (the widest node's legal children).
Slots are packed: slot k of a node is its k-th legal action, so kernels need no masks and scan no illegal child.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["CHANCE", "EMPTY", "PENDING", "PLAYER", "SOLVED", "TERMINAL", "Nodes", "aligned", "allocate", "bytes_used"]

EMPTY = -1  # child of a slot that was never visited
PENDING = -2  # child of a slot whose evaluation was asked for and not told yet
TERMINAL = 1  # status bit: the episode ends here, value 0, never descended
_LINE = 64  # bytes
SOLVED = 2  # status bit: the value is exact, nothing below can change it
PLAYER = 4  # status bit: the second of two players is to move
CHANCE = 8  # status bit: not a state but a move just made; its slots are the outcomes, their priors the probabilities


class Nodes(NamedTuple):
    """Trees of a batch of roots; inside the kernels the same fields without the leading B. Node 0 is the root."""

    prior: np.ndarray  # [B, N, W] float32, probability of the child (or its weight, for rules that have no policy)
    visits: np.ndarray  # [B, N, W] int32
    q: np.ndarray  # [B, N, W] float32, reward of the step + discount * value of the child; unvisited: undefined
    child: np.ndarray  # [B, N, W] int32, node, EMPTY or PENDING
    action: np.ndarray  # [B, N, W] int16, the world's name for the slot
    width: np.ndarray  # [B, N] int32, slots in use
    seen: np.ndarray  # [B, N] int32, visits of the node, its own evaluation included
    value: np.ndarray  # [B, N] float32, what search thinks of the node
    raw: np.ndarray  # [B, N] float32, what the evaluator thought of it
    reward: np.ndarray  # [B, N] float32, credited on entering the node
    status: np.ndarray  # [B, N] uint8, TERMINAL | SOLVED | PLAYER | CHANCE
    size: np.ndarray  # [B, 1] int32, nodes in use


def aligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Returns an empty array that starts on a cache line, so that a node's row of slots does not straddle two."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + 2 * _LINE, np.uint8)  # a line behind it, for kernels that read eight slots at once
    start = -room.ctypes.data % _LINE
    return room[start : start + size].view(dtype).reshape(shape)


def allocate(roots: int, nodes: int, slots: int) -> Nodes:
    """Returns arrays for `roots` trees; rows are initialised when a node is attached."""
    wide, tall = (roots, nodes, slots), (roots, nodes)
    return Nodes(
        prior=aligned(wide, np.float32),
        visits=aligned(wide, np.int32),
        q=aligned(wide, np.float32),
        child=aligned(wide, np.int32),
        action=aligned(wide, np.int16),
        width=np.zeros(tall, np.int32),
        seen=np.zeros(tall, np.int32),
        value=np.zeros(tall, np.float32),
        raw=np.zeros(tall, np.float32),
        reward=np.zeros(tall, np.float32),
        status=np.zeros(tall, np.uint8),
        size=np.zeros((roots, 1), np.int32),
    )


def bytes_used(tree: Nodes) -> tuple[int, int]:
    """Returns bytes per child slot, and per node apart from its slots."""
    slot = sum(array.itemsize for array in tree if array.ndim == 3)
    node = sum(array.itemsize for array in tree if array.ndim == 2 and array is not tree.size)
    return slot, node
