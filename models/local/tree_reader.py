"""Trees of tokens read once: scored, and gone on from at any of their nodes without reading anything again.

A pass over the trees (`tree_attention`) leaves the keys and values of every token. A continuation from a node gathers
those of its path, and costs one token per token it writes; many run in one batch, and the ones that have become
hopeless to their caller are dropped on the way.

Letters: S tokens of all trees (prompts and nodes), B rows, P longest path, H key/value heads, D hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch

from treegym.models.base import check_length, context_length
from treegym.models.local.network import Network
from treegym.models.local.row_cache import RowCache
from treegym.models.local.tree_attention import Laid, lay_out_trees, read_scores
from treegym.models.tree_scores import Branches, Hopeless, TreeScores

__all__ = ["TreeReader"]

GATHERED = 12_288  # tokens of the paths of one batch of continuations; bounds the memory of their keys and values


class TreeReader:
    """Some trees in a model's memory."""

    @torch.inference_mode()
    def __init__(self, model: Network, trees: Sequence[Branches]) -> None:
        self.model, self.trees = model, list(trees)
        self._start = np.cumsum([0, *(len(tree.prompt) + tree.size for tree in trees)])  # [trees + 1] places in S
        self._states: torch.Tensor | None = None  # [S, D]
        self._keys: list[torch.Tensor] = []  # per layer [S, H, head size]
        self._values: list[torch.Tensor] = []
        for laid in lay_out_trees(model, trees):
            self._read(laid)

    def _read(self, laid: Laid) -> None:
        """Reads some trees and keeps their states, keys and values."""
        from transformers import DynamicCache

        cache = DynamicCache()
        states = laid.read(self.model, cache)  # [B, L, D]
        row = np.repeat(np.arange(len(laid.indices)), [self._length(index) for index in laid.indices])
        column = np.concatenate([np.arange(self._length(index)) for index in laid.indices])
        place = np.concatenate([self._start[index] + np.arange(self._length(index)) for index in laid.indices])
        rows, columns, places = (torch.from_numpy(array).to(self.model.device) for array in (row, column, place))
        if self._states is None:
            size = int(self._start[-1])
            self._states = states.new_empty((size, states.shape[-1]))
            for layer in cache.layers:
                for kept, stored in ((self._keys, layer.keys), (self._values, layer.values)):
                    kept.append(stored.new_empty((size, stored.shape[1], stored.shape[3])))
        self._states[places] = states[rows, columns]
        for number, layer in enumerate(cache.layers):
            self._keys[number][places] = layer.keys[rows, :, columns]
            self._values[number][places] = layer.values[rows, :, columns]

    def _length(self, index: int) -> int:
        return len(self.trees[index].prompt) + self.trees[index].size

    def scores(self, *, best: int = 1, worst: int = 0, hidden: bool = False) -> list[TreeScores]:
        """Returns what the model says of the trees; see `treegym.models.tree_scores.score_trees`."""
        places = [
            start + len(tree.prompt) - 1 + np.arange(tree.size + 1)
            for start, tree in zip(self._start, self.trees, strict=False)
        ]
        flat = self.states(np.concatenate(places))
        return read_scores(self.model, self.trees, flat, best=best, worst=worst, hidden=hidden)

    def states(self, places: np.ndarray) -> torch.Tensor:
        """Returns the states of some tokens ``[n, D]``, by where they stand."""
        assert self._states is not None
        return self._states[torch.from_numpy(places).to(self.model.device)]

    @torch.inference_mode()
    def states_after(self, nodes: Sequence[tuple[int, int]], tokens: Sequence[int]) -> np.ndarray:
        """Returns the state of a token after each node ``[B, D] float32``; nodes of a tree side by side."""
        found = np.empty((len(nodes), self.model.config.hidden_size), np.float32)
        for rows in self._batches(nodes, [1] * len(nodes)):
            running = self._gathered([nodes[row] for row in rows])
            running.advance(torch.tensor([tokens[row] for row in rows]))
            found[rows] = running.state.float().cpu().numpy()
        return found

    def ends(self, tree: int, nodes: np.ndarray) -> np.ndarray:
        """Returns where nodes of a tree stand ``[n] int64``; -1 is the prompt's last token."""
        return int(self._start[tree]) + len(self.trees[tree].prompt) + nodes

    def places(self, tree: int, node: int) -> np.ndarray:
        """Returns where the tokens from a prompt's first one down to a node stand ``[path] int64``."""
        branches, start = self.trees[tree], int(self._start[tree])
        below = []
        while node >= 0:
            below.append(start + len(branches.prompt) + node)
            node = int(branches.parents[node])
        return np.array([*range(start, start + len(branches.prompt)), *below[::-1]], np.int64)

    @torch.inference_mode()
    def greedy(
        self,
        nodes: Sequence[tuple[int, int]],
        tokens: Sequence[int],
        *,
        limits: Sequence[int],
        stops: Collection[int],
        hopeless: Hopeless | None = None,
    ) -> list[list[int] | None]:
        """Returns the likeliest continuation after each token that follows a node, None where it was dropped.

        See `treegym.models.tree_scores.Reading`.
        """
        made: list[list[int] | None] = [None] * len(nodes)
        for rows in self._batches(nodes, limits):
            self._decode(rows, nodes, tokens, limits, frozenset(stops), hopeless, made)
        return made

    def _batches(self, nodes: Sequence[tuple[int, int]], limits: Sequence[int]) -> list[list[int]]:
        """Returns rows in batches of bounded size, all of a tree's rows in the same one."""
        batches: list[list[int]] = []
        held, longest, tree = 0, 0, -1
        for row, (owner, node) in enumerate(nodes):
            length = len(self.places(owner, node)) + limits[row]
            longest = max(longest, length)
            if not batches or (owner != tree and (held + 1) * longest > GATHERED):
                batches.append([])
                held, longest = 0, length
            batches[-1].append(row)
            held, tree = held + 1, owner
        return batches

    def _decode(
        self,
        rows: list[int],
        nodes: Sequence[tuple[int, int]],
        tokens: Sequence[int],
        limits: Sequence[int],
        stops: frozenset[int],
        hopeless: Hopeless | None,
        made: list[list[int] | None],
    ) -> None:
        ended: dict[int, list[int]] = {row: [] for row in rows if limits[row] < 1}
        made_now: dict[int, list[int]] = {row: [] for row in rows}
        active = [row for row in rows if limits[row] >= 1]
        dropped = set(hopeless(0, ended)) if hopeless is not None else set()
        active = [row for row in active if row not in dropped]
        step = 0
        if active:
            running = self._gathered([nodes[row] for row in active])
            running.advance(torch.tensor([tokens[row] for row in active]))
            length = context_length(self.model)
            check_length(int(running.position.max()) + 1, name=self.model.name, limit=length)
        while active:
            chosen = self.model.likeliest(running.state)  # [B]
            step += 1
            last_position = running.position[:, 0].tolist()
            for row, token, position in zip(active, chosen.tolist(), last_position, strict=True):
                made_now[row].append(token)
                full = length is not None and position + 1 >= length
                if token in stops or step >= limits[row] or full:
                    ended[row] = made_now[row]
            dropped = set(hopeless(step, ended)) if hopeless is not None else set()
            keep = [place for place, row in enumerate(active) if row not in ended and row not in dropped]
            if len(keep) < len(active):
                active = [active[place] for place in keep]
                if not active:
                    break
                index = torch.tensor(keep)
                running.keep(index.to(self.model.device))
                chosen = chosen[index]
            running.advance(chosen)
        for row, continuation in ended.items():
            made[row] = continuation

    def _gathered(self, nodes: Sequence[tuple[int, int]]) -> RowCache:
        """Returns the paths to some nodes as rows that can be gone on from."""
        assert self._states is not None
        read = list(zip(self._keys, self._values, strict=True))
        return RowCache.gathered(self.model, read, self._states, [self.places(tree, node) for tree, node in nodes])
