"""The search trees as torch tensors, and how a simulation changes them.

Letters: B roots, N nodes a root can hold, A actions, R = B N + 1 rows, D nodes on the way from a leaf to its root.

Row b N + n is node n of root b; the last row belongs to nobody: what must not be written goes there, so that every
simulation is the same sequence of operations whatever it comes upon, and nothing has to be read back to decide.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from treegym.search.tensors.rules import Rows, fused
from treegym.search.tree import EMPTY

__all__ = ["Arrival", "Trees", "allocate", "attach", "backup", "repoint"]


class Trees(NamedTuple):
    """One row per node. A child that must not be taken has prior 0."""

    prior: torch.Tensor  # [R, A] float32
    visits: torch.Tensor  # [R, A] int32
    q: torch.Tensor  # [R, A] float32
    child: torch.Tensor  # [R, A] int64, row of the child or EMPTY
    seen: torch.Tensor  # [R] int32, visits of the node, its own evaluation included
    value: torch.Tensor  # [R] float32
    raw: torch.Tensor  # [R] float32, what the evaluator thought of it
    reward: torch.Tensor  # [R] float32, credited on entering the node
    onward: torch.Tensor  # [R] float32, what its value is multiplied by to count for its parent
    parent: torch.Tensor  # [R] int64
    slot: torch.Tensor  # [R] int64, the action that leads here from the parent
    depth: torch.Tensor  # [R] int64
    ended: torch.Tensor  # [R] bool
    second: torch.Tensor  # [R] bool, the second of two players is to move
    leaf: torch.Tensor  # [R] int64, row of the node at which a descent from here stops
    move: torch.Tensor  # [R] int64, the action that a descent from here takes there

    def rows(self, at: torch.Tensor) -> Rows:
        """Returns what selection rules read of the nodes in rows `at`."""
        return Rows(*(array[at] for array in (self.prior, self.visits, self.q, self.seen, self.value, self.raw)))


class Arrival(NamedTuple):
    """What became of one simulation per root."""

    fresh: torch.Tensor  # [B] bool, the move was made for the first time
    reward: torch.Tensor  # [B] float32
    ended: torch.Tensor  # [B] bool
    second: torch.Tensor  # [B] bool
    value: torch.Tensor  # [B] float32
    prior: torch.Tensor  # [B, A] float32


def allocate(roots: int, nodes: int, actions: int, device: torch.device) -> Trees:
    """Returns trees without nodes."""
    rows = roots * nodes + 1

    def zeros(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.zeros((rows, *shape), dtype=dtype, device=device)

    return Trees(
        prior=zeros(torch.float32, actions),
        visits=zeros(torch.int32, actions),
        q=zeros(torch.float32, actions),
        child=zeros(torch.int64, actions) + EMPTY,
        seen=zeros(torch.int32),
        value=zeros(torch.float32),
        raw=zeros(torch.float32),
        reward=zeros(torch.float32),
        onward=zeros(torch.float32),
        parent=zeros(torch.int64),
        slot=zeros(torch.int64),
        depth=zeros(torch.int64),
        ended=zeros(torch.bool),
        second=zeros(torch.bool),
        leaf=zeros(torch.int64),
        move=zeros(torch.int64),
    )


def attach(
    trees: Trees, new: torch.Tensor, node: torch.Tensor, move: torch.Tensor, told: Arrival, discount: float
) -> torch.Tensor:
    """Adds a node per root in rows `new` below ``move`` of ``node``; returns the rows [B] where the simulations end.

    Where the move was made before, that is the child which is there, and the new row stays unused.
    """
    there = trees.child[node, move]
    end = torch.where(told.fresh, new, there)
    trees.child[node, move] = end
    trees.prior[new] = told.prior
    trees.seen[new] = 1
    trees.value[new] = trees.raw[new] = torch.where(told.ended, 0.0, told.value)
    trees.reward[new], trees.ended[new], trees.second[new] = told.reward, told.ended, told.second
    trees.onward[new] = torch.where(told.second == trees.second[node], discount, -discount)
    trees.parent[new], trees.slot[new], trees.depth[new] = node, move, trees.depth[node] + 1
    return end


def backup(trees: Trees, root: torch.Tensor, end: torch.Tensor, longest: int) -> torch.Tensor:
    """Carries the value of each `end` up to its root; returns the way [B, D], the root as often as needed at its end.

    Sums of returns go step by step, rounded as the kernels round them; everything else is done for all steps at once.
    """
    way = [end]
    for _ in range(longest):
        way.append(trees.parent[way[-1]])  # a root is its own
    nodes = torch.stack(way, 1)
    below, above = nodes[:, :-1], nodes[:, 1:]
    inside = below != root[:, None]
    nobody = len(trees.seen) - 1
    above, slots = torch.where(inside, above, nobody), torch.where(inside, trees.slot[below], 0)
    reward, onward = trees.reward[below].double().unbind(1), trees.onward[below].double().unbind(1)
    value, returns = trees.value[end], []
    for step in range(longest):
        value = torch.addcmul(reward[step], onward[step], value.double()).float()  # `fused`
        returns.append(value)
    count = trees.seen[above]
    mean = fused(trees.value[above], count, torch.stack(returns, 1)) / (count + 1)
    trees.value[above] = mean
    trees.seen[above] = count + 1
    trees.q[above, slots] = fused(trees.onward[below], trees.value[below], trees.reward[below])
    trees.visits[above, slots] = trees.visits[above, slots] + 1
    return nodes


def repoint(trees: Trees, root: torch.Tensor, way: torch.Tensor, chosen: torch.Tensor, deepest: int) -> None:
    """Notes where a descent from each node on a way [B, D] stops, given the child that each chooses now.

    A choice follows from what a node knows of its children, so only those on the way can have changed their minds: a
    descent never has to be walked. It stops here, or where it does from the child, which on the way is found first.
    """
    child = trees.child[way, chosen]
    known = child.clamp(min=0)
    stops = (child < 0) | trees.ended[known] | (trees.depth[way] + 1 >= deepest)
    leaf, move = torch.where(stops, way, trees.leaf[known]), torch.where(stops, chosen, trees.move[known])
    same = torch.zeros_like(stops)
    same[:, 1:] = (~stops[:, 1:] & (child[:, 1:] == way[:, :-1])) | (way[:, :-1] == root[:, None])
    steps = torch.arange(way.shape[1], device=way.device).expand_as(way)
    first = torch.where(same, -1, steps).cummax(1).values
    trees.leaf[way], trees.move[way] = leaf.gather(1, first), move.gather(1, first)
