"""What the explorer shows of a tree: one root's nodes as flat columns, with the optimum and, if asked for, a search.

Letters: N nodes of the tree, n nodes of the root shown, M teachers, A actions.

Nodes of a root are renumbered breadth first, so that a node's children stand side by side whatever their numbers in
the tree, and a cut after any level leaves a sound tree.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treegym.errors import ConfigError

__all__ = ["Search", "TreeView", "Walk", "pack"]

NODE_LIMIT = 250_000  # nodes of one root that are sent to a browser
ROOT_LIMIT = 20_000  # prompts that are listed
END, CORRECT, REACHES, BEST, SHORTEST, LIKELY, EXPANDED, CUT = (1 << bit for bit in range(8))


@dataclass(frozen=True)
class Search:
    """A search run from every node, for its visits and values."""

    method: str
    num_simulations: int
    seed: int = 0


@dataclass(frozen=True)
class Walk:
    """A path through one root, step by step."""

    name: str
    root: int
    nodes: Sequence[int]  # the root's node first
    probabilities: Sequence[Mapping[int, float]] = field(
        default_factory=tuple
    )  # at each step: child node -> probability


class TreeView:
    """Answers what the page asks about a tree.

    Args:
        world: a `TreeWorld`: the tree with its reward table and its ends.
        search: a search to run from every node of the roots shown.
        walks: agents' walks, to step through.
        title: what the page is called.
    """

    def __init__(
        self, world: Any, *, search: Search | None = None, walks: Sequence[Walk] = (), title: str = "tree"
    ) -> None:
        self.world = world
        self.tree = world.tree
        self.search = search
        self.title = title
        self._walks: dict[int, list[Walk]] = {}
        for walk in walks:
            self._walks.setdefault(walk.root, []).append(walk)
        self._solution = world.solution(1.0)
        self._correct = world.correct(np.arange(self.tree.size))  # [N] bool
        world.table.ensure(np.arange(self.tree.size))
        self._reward = np.where(np.asarray(self.tree.parent) < 0, 0.0, world.table.total)  # [N] float64

    def meta(self) -> dict[str, Any]:
        """Returns what the page needs to know once: the vocabulary, the teachers, the prompts."""
        tree = self.tree
        solvable = self._solution.reachable[np.asarray(tree.root_node)]
        shown = range(min(tree.num_roots, ROOT_LIMIT))
        return {
            "title": self.title,
            "tokens": [_text(piece) for piece in tree.tokens],
            "eos": tree.eos_id,
            "teachers": list(tree.teachers),
            "nodes": tree.size,
            "roots": [
                {
                    "prompt": tree.roots[i].prompt[:500],
                    "answer": str(tree.roots[i].answer)[:500],
                    "split": tree.roots[i].split,
                    "kind": tree.roots[i].kind,
                    "solvable": bool(solvable[i]),
                    "walks": len(self._walks.get(i, ())),
                }
                for i in shown
            ],
            "roots_left_out": tree.num_roots - len(shown),
            "search": None if self.search is None else [self.search.method, self.search.num_simulations],
            "reward": dict(zip(self.world.table.names, map(float, self.world.table.weights), strict=True)),
            "weights": tree.has("weight"),
        }

    def block(self, root: int) -> bytes:
        """Returns one root's nodes, packed (see `pack`); ConfigError for a root that does not exist."""
        if not 0 <= root < self.tree.num_roots:
            raise ConfigError(f"root is {root}; the tree has {self.tree.num_roots}")
        nodes = self._nodes(root)
        local = {int(node): i for i, node in enumerate(nodes)} if root in self._walks else {}
        columns = self._columns(nodes)
        walks = [
            {
                "name": walk.name,
                "nodes": [local[node] for node in walk.nodes if node in local],
                "probabilities": [
                    {local[child]: round(p, 4) for child, p in step.items() if child in local}
                    for step in walk.probabilities
                ],
            }
            for walk in self._walks.get(root, ())
        ]
        header = {"root": root, "left_out": self._left_out(columns), "walks": walks}
        if image := self.tree.roots[root].image:
            header["picture"] = base64.b64encode(image).decode()
        return pack(header, columns)

    def _nodes(self, root: int) -> np.ndarray:
        """Returns the root's nodes breadth first ``[n] int64``, whole levels as long as they fit."""
        tree = self.tree
        level = np.array([tree.root_node[root]], np.int64)
        levels, total = [level], 1
        while len(level):
            first, count = np.asarray(tree.first_child)[level], np.asarray(tree.child_count)[level].astype(np.int64)
            count = np.where(first < 0, 0, count)
            if total + count.sum() > NODE_LIMIT:
                break
            offsets = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            level = np.repeat(first, count) + offsets
            levels.append(level)
            total += len(level)
        return np.concatenate(levels)

    def _columns(self, nodes: np.ndarray) -> dict[str, np.ndarray]:
        tree, solution = self.tree, self._solution
        size = len(nodes)
        place = np.full(int(nodes.max()) + 1, -1, np.int64)  # global id -> local id
        place[nodes] = np.arange(size)
        first = np.asarray(tree.first_child)[nodes]
        count = np.where(first < 0, 0, np.asarray(tree.child_count)[nodes]).astype(np.int32)
        inside = np.where((count > 0) & (first < len(place)), place[np.clip(first, 0, len(place) - 1)], -1)
        parent = np.asarray(tree.parent)[nodes]
        columns = {
            "node": nodes.astype(np.int32),
            "token": np.asarray(tree.token)[nodes].astype(np.int32),
            "parent": np.where(parent < 0, -1, place[np.maximum(parent, 0)]).astype(np.int32),
            "first": inside.astype(np.int32),
            "count": np.where(inside < 0, 0, count).astype(np.int32),
            "depth": np.asarray(tree.depth)[nodes].astype(np.int32),
            "proposers": np.asarray(tree.proposers)[nodes].astype(np.uint32),
            "state": self._state(nodes, inside, count).astype(np.int32),
            "prior": np.asarray(tree.prior)[nodes].astype(np.float32),
            "similarity": np.asarray(tree.similarity)[nodes].astype(np.float32),
            "reward": self._reward[nodes].astype(np.float32),
            "value": np.asarray(solution.value)[nodes].astype(np.float32),
            "judge": np.asarray(tree.judge)[nodes].astype(np.float32),
            "teachers": np.asarray(tree.teacher_logp)[nodes].astype(np.float32),  # [n, M]
        }
        if tree.has("weight"):
            columns["weight"] = np.asarray(tree.weight)[nodes].astype(np.float32)
        if self.search is not None:
            columns |= self._searched(columns, inside)
        return columns

    def _state(self, nodes: np.ndarray, inside: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Returns the bits that colours and marks come from ``[n] int64``."""
        solution = self._solution
        state = np.zeros(len(nodes), np.int64)
        state[self.world.tables.ends[nodes]] |= END
        state[self._correct[nodes]] |= CORRECT
        state[solution.reachable[nodes]] |= REACHES
        state[count > 0] |= EXPANDED
        state[(count > 0) & (inside < 0)] |= CUT
        prior = np.asarray(self.tree.prior)[nodes]

        def likeliest(i: int) -> int:
            return int(np.argmax(prior[inside[i] : inside[i] + count[i]]))

        choices = {BEST: solution.best_child, SHORTEST: solution.shortest_child, LIKELY: None}
        for bit, table in choices.items():
            here = 0
            while True:
                state[here] |= bit
                if inside[here] < 0:
                    break
                step = likeliest(here) if table is None else int(table[nodes[here]])
                if step < 0:
                    break
                here = int(inside[here]) + step
        return state

    def _searched(self, columns: dict[str, np.ndarray], inside: np.ndarray) -> dict[str, np.ndarray]:
        """Returns visits and Q of every child, from a search that started at its parent."""
        from treegym.search.closed import search_closed

        assert self.search is not None
        size = len(inside)
        ends = (columns["state"] & END) != 0
        starts = np.flatnonzero((inside >= 0) & (columns["count"] > 0) & ~ends)
        visits = np.zeros(size, np.int32)
        q = np.full(size, np.nan, np.float32)
        if len(starts):
            result = search_closed(
                first_child=columns["first"],
                child_count=columns["count"].astype(np.uint16),
                terminal=ends,
                reward=columns["reward"],
                prior_logits=columns["prior"],
                value=np.zeros(size, np.float32),
                roots=starts.astype(np.int32),
                num_simulations=self.search.num_simulations,
                method=self.search.method,
                seed=self.search.seed,
            )
            owner = np.repeat(np.arange(len(starts)), columns["count"][starts])
            slot = np.arange(len(owner)) - np.repeat(np.cumsum(columns["count"][starts]) - columns["count"][starts],
                                                     columns["count"][starts])  # fmt: skip
            child = inside[starts][owner] + slot
            visits[child] = result.visits[owner, slot]
            q[child] = result.q[owner, slot]
        return {"visits": visits, "q": q}

    def _left_out(self, columns: dict[str, np.ndarray]) -> int:
        return int(((columns["state"] & CUT) != 0).sum())


def pack(header: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> bytes:
    """Returns a header and arrays as bytes that JavaScript can view as typed arrays.

    Four bytes of header length, the JSON header padded to a multiple of four (it lists name, type, shape and offset of
    every array, counted from the header's end), then the arrays, all of them four bytes an element, little-endian.
    """
    kinds = {"i": "<i4", "u": "<u4", "f": "<f4"}
    arrays, entries, offset = [], {}, 0
    for name, column in columns.items():
        array = np.ascontiguousarray(column.astype(kinds[column.dtype.kind], copy=False))
        entries[name] = {"type": array.dtype.kind, "shape": list(array.shape), "offset": offset}
        arrays.append(array.tobytes())
        offset += array.nbytes
    text = json.dumps({**header, "columns": entries}, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    return b"".join([len(text).to_bytes(4, "little"), text, *arrays])


def _text(piece: str) -> str:
    """Returns a vocabulary piece as readable text."""
    return piece.encode("latin-1").decode("utf-8", "replace")
