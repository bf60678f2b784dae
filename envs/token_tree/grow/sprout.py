"""A sprout: the growing tree of one prompt, before it is laid out in the arena.

Node -1 stands for the prompt itself; nodes are numbered in the order they came.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treegym.models.tree_scores import Branches

__all__ = ["ROOT", "Sprout"]

ROOT = -1


class Sprout:
    """Tokens below one prompt, as a trie with provenance."""

    def __init__(self, *, eos_id: int, max_tokens: int, allowed: np.ndarray) -> None:
        """`allowed` [V] bool: tokens that a tree may hold; others end the path they would be on."""
        self.eos_id = eos_id
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.proposers: list[int] = []  # provenance bits
        self.greedy: list[bool] = []  # whether the node came from closing
        self._children: dict[int, dict[int, int]] = {ROOT: {}}  # node -> token -> node
        self._max_tokens, self._allowed = max_tokens, allowed

    @property
    def closed_by(self) -> frozenset[int]:
        """The tokens at which a continuation is over: the end, and those that may not stand in a tree."""
        return frozenset([self.eos_id, *np.flatnonzero(~self._allowed).tolist()])

    @property
    def size(self) -> int:
        return len(self.tokens)

    def children(self, node: int) -> dict[int, int]:
        """Returns the children of a node, token to node, in the order they came."""
        return self._children[node]

    def depth(self, node: int) -> int:
        return 0 if node == ROOT else self.depths[node]

    def room(self, node: int) -> int:
        """Returns how many more tokens a path may have below `node`."""
        return self._max_tokens - self.depth(node)

    def contexts(self) -> list[int]:
        """Returns the nodes after which something may be said: no ends, and not where only an end has room."""
        return [node for node in range(ROOT, self.size) if not self.is_end(node) and self.room(node) > 1]

    def is_end(self, node: int) -> bool:
        return node != ROOT and self.tokens[node] == self.eos_id

    def path(self, node: int) -> list[int]:
        """Returns the tokens below the prompt down to `node`."""
        path: list[int] = []
        while node != ROOT:
            path.append(self.tokens[node])
            node = self.parents[node]
        return path[::-1]

    def spoken(self, continuation: Sequence[int], *, room: int) -> list[int]:
        """Returns the part of a continuation that a tree may hold, at most `room` tokens, the last one an end.

        It is cut before a token that may not stand there; at the limit the end is put. What does not reach an end is
        returned without one: somebody has to go on from there.
        """
        kept: list[int] = []
        for token in continuation:
            if token == self.eos_id or len(kept) + 1 >= room:
                return [*kept, self.eos_id]
            if not self._allowed[token]:
                break
            kept.append(int(token))
        return kept

    def finished(self, continuation: Sequence[int], *, room: int) -> list[int]:
        """Returns what `spoken` does, with an end put where there is none, so that the path ends in a real terminal."""
        kept = self.spoken(continuation, room=room)
        return kept if kept and kept[-1] == self.eos_id else [*kept, self.eos_id]

    def add(self, node: int, token: int, *, bits: int, greedy: bool = False) -> int:
        """Returns the child of `node` with this token, made if need be, with the proposers' bits set."""
        siblings = self._children[node]
        child = siblings.get(token)
        if child is None:
            child = len(self.tokens)
            siblings[token] = child
            self.tokens.append(token)
            self.parents.append(node)
            self.depths.append(self.depth(node) + 1)
            self.proposers.append(0)
            self.greedy.append(greedy)
            self._children[child] = {}
        self.proposers[child] |= bits
        return child

    def add_path(self, node: int, tokens: Sequence[int], *, bits: int, greedy: bool = False) -> int:
        """Adds a chain of tokens below `node` and returns its last node."""
        for token in tokens:
            node = self.add(node, int(token), bits=bits, greedy=greedy)
        return node

    def add_answer(self, tokens: Sequence[int], *, bits: int, max_children: int) -> int | None:
        """Adds an answer below the prompt and returns its last node; None if a full context cut it off.

        Of a cut answer the part that stands already is credited to its proposer, and nothing is left open.
        """
        node = ROOT
        for token in tokens:
            if token not in self._children[node] and len(self._children[node]) >= max_children:
                return None
            node = self.add(node, int(token), bits=bits)
        return node

    def credit(self, node: int, proposals: Sequence[tuple[int, int]]) -> None:
        """Adds provenance to the children of a node that stand there already: whoever would have said it, did."""
        for token, bits in proposals:
            child = self._children[node].get(token)
            if child is not None:
                self.proposers[child] |= bits

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens and parents of all nodes ``[n] int32``."""
        return np.array(self.tokens, np.int32), np.array(self.parents, np.int32)

    def branches(self, prompt: tuple[int, ...]) -> Branches:
        """Returns the sprout as arrays below a prompt, node numbers unchanged."""
        return Branches(prompt, *self.arrays())

    def level_order(self) -> np.ndarray:
        """Returns all nodes level by level, siblings side by side in the order they came ``[n] int64``."""
        parents, depths = np.array(self.parents, np.int64), np.array(self.depths, np.int64)
        order = np.argsort(depths, kind="stable")
        rank = np.empty(self.size, np.int64)  # where each node of the levels so far stands
        starts = np.flatnonzero(np.diff(depths[order], prepend=0))
        for start, stop in zip(starts, [*starts[1:], self.size], strict=True):
            level = order[start:stop]
            if start:  # the first level's parent is the prompt
                level = level[np.argsort(rank[parents[level]], kind="stable")]
            order[start:stop] = level
            rank[level] = np.arange(start, stop)
        return order
