"""Trees of tokens read once: scored, and gone on from at any of their nodes without reading anything again.

A pass over the trees (`tree_attention`) leaves the keys and values of every token. A continuation from a node costs one
token per token it writes (`tree_decoding`); many run in one batch, and the ones that have become hopeless to their
caller are dropped on the way.

Letters: S tokens of all trees (prompts and nodes), B trees, C tokens of the largest, R continuations, H key/value
heads, D hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from treegym.models.base import check_length, context_length
from treegym.models.local.network import Network
from treegym.models.local.new_nodes import NewNodes, lay_out_new_nodes
from treegym.models.local.tree_attention import Laid, additive_masks, lay_out_trees, read_scores
from treegym.models.local.tree_decoding import TreeDecoding
from treegym.models.tree_scores import Branches, Hopeless, Known, TreeScores

__all__ = ["TreeReader"]

HELD = 12_288  # tokens of the trees of one batch of continuations and of what they write; bounds the memory


class TreeReader:
    """Some trees in a model's memory."""

    @torch.inference_mode()
    def __init__(self, model: Network, trees: Sequence[Branches], known: Known | None = None) -> None:
        """Reads trees; nodes that are known from a reading of this class are taken over from it."""
        self.model, self.trees = model, list(trees)
        self._shared = 0  # tokens that all prompts begin with; they come first, once
        self._start = np.zeros(0, np.int64)  # [trees + 1] places in S
        self._states: torch.Tensor | None = None  # [S, D]
        self._keys: list[torch.Tensor] = []  # per layer [S, H, head size]
        self._values: list[torch.Tensor] = []
        if known is not None and isinstance(known.reading, TreeReader):
            self._take_over(known.reading, known.nodes)
            for added in lay_out_new_nodes(model, trees, known.nodes, self._shared):
                self._read_new(added)
            return
        for laid in lay_out_trees(model, trees):
            self._read(laid)

    def _take_over(self, old: TreeReader, nodes: Sequence[np.ndarray]) -> None:
        """Makes the arrays and copies what was read before."""
        assert old._states is not None
        assert [tree.prompt for tree in old.trees] == [tree.prompt for tree in self.trees]
        self._shared = old._shared
        self._start = self._shared + np.cumsum([0, *(self._length(index) for index in range(len(self.trees)))])
        here, there = [np.arange(self._shared)], [np.arange(self._shared)]
        for index, same in enumerate(nodes):
            prompt = np.arange(len(self.trees[index].prompt) - self._shared)
            [known] = np.nonzero(same >= 0)
            here += [self._start[index] + prompt, self.ends(index, known)]
            there += [old._start[index] + prompt, old.ends(index, same[known])]
        to, source = (torch.from_numpy(np.concatenate(part)).to(self.model.device) for part in (here, there))
        self._states = self._copied(old._states, to, source)
        self._keys = [self._copied(keys, to, source) for keys in old._keys]
        self._values = [self._copied(values, to, source) for values in old._values]

    def _copied(self, old: torch.Tensor, to: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        fresh = old.new_empty((int(self._start[-1]), *old.shape[1:]))
        fresh[to] = old[source]
        return fresh

    def _read_new(self, added: NewNodes) -> None:
        """Reads nodes that are new in trees that were read before."""
        assert self._states is not None
        before = [self._places_of(index, nodes) for index, nodes in zip(added.indices, added.known, strict=True)]
        width = added.visible.shape[2] - added.ids.shape[1]
        padded = np.stack([np.pad(places, (0, width - len(places))) for places in before])
        cache = self._cache_of(padded)  # [B, P + K]; padding is not seen
        masks = additive_masks(self.model, added.visible, added.positions, added.key_positions)
        states = self.model.hidden(added.ids, positions=added.positions, mask=masks, cache=cache)
        row = np.repeat(np.arange(len(added.new)), [len(nodes) for nodes in added.new])
        column = np.concatenate([np.arange(len(nodes)) for nodes in added.new])
        place = np.concatenate([self.ends(i, nodes) for i, nodes in zip(added.indices, added.new, strict=True)])
        rows, columns, places = (torch.from_numpy(array).to(self.model.device) for array in (row, column, place))
        self._states[places] = states[rows, columns]
        for number, layer in enumerate(cache.layers):
            self._keys[number][places] = layer.keys[rows, :, width + columns]
            self._values[number][places] = layer.values[rows, :, width + columns]

    def _places_of(self, index: int, nodes: np.ndarray) -> np.ndarray:
        """Returns where a tree's prompt, from the first token on, and some of its nodes are kept."""
        prompt = self._start[index] + np.arange(len(self.trees[index].prompt) - self._shared)
        return np.concatenate([np.arange(self._shared), prompt, self.ends(index, nodes)])

    def _read(self, laid: Laid) -> None:
        """Reads some trees and keeps their states, keys and values."""
        states, cache = laid.read(self.model, keep=True)  # [B, L, D]
        if self._states is None:
            self._make_room(laid, states, cache)
        row = np.repeat(np.arange(len(laid.indices)), [self._length(index) for index in laid.indices])
        column = np.concatenate([np.arange(self._length(index)) for index in laid.indices])
        place = np.concatenate([self._start[index] + np.arange(self._length(index)) for index in laid.indices])
        rows, columns, places = (torch.from_numpy(array).to(self.model.device) for array in (row, column, place))
        assert self._states is not None
        self._states[places] = states[rows, columns]
        for number, layer in enumerate(cache.layers):
            self._keys[number][places] = layer.keys[rows, :, self._shared + columns]
            self._values[number][places] = layer.values[rows, :, self._shared + columns]

    def _make_room(self, laid: Laid, states: torch.Tensor, cache: Any) -> None:
        """Makes the arrays, with what all prompts begin with in its place."""
        self._shared = laid.shared
        self._start = self._shared + np.cumsum([0, *(self._length(index) for index in range(len(self.trees)))])
        size = int(self._start[-1])
        self._states = states.new_empty((size, states.shape[-1]))
        for layer in cache.layers:
            for kept, stored in ((self._keys, layer.keys), (self._values, layer.values)):
                kept.append(stored.new_empty((size, stored.shape[1], stored.shape[3])))
        if laid.beginning is not None:
            self._states[: self._shared] = laid.beginning.states
            for number, (keys, values) in enumerate(zip(laid.beginning.keys, laid.beginning.values, strict=True)):
                self._keys[number][: self._shared] = keys[0].transpose(0, 1)
                self._values[number][: self._shared] = values[0].transpose(0, 1)

    def _length(self, index: int) -> int:
        """How many tokens of a tree are kept for it alone, those of its prompt first."""
        return len(self.trees[index].prompt) - self._shared + self.trees[index].size

    def scores(self, *, best: int = 1, worst: int = 0, hidden: bool = False) -> list[TreeScores]:
        """Returns what the model says of the trees; see `treegym.models.tree_scores.score_trees`."""
        places = [self.ends(number, np.arange(-1, tree.size)) for number, tree in enumerate(self.trees)]
        flat = self.states(np.concatenate(places))
        return read_scores(self.model, self.trees, flat, best=best, worst=worst, hidden=hidden)

    def states(self, places: np.ndarray) -> torch.Tensor:
        """Returns the states of some tokens ``[n, D]``, by where they are kept."""
        assert self._states is not None
        return self._states[torch.from_numpy(places).to(self.model.device)]

    @torch.inference_mode()
    def states_after(self, nodes: Sequence[tuple[int, int]], tokens: Sequence[int]) -> np.ndarray:
        """Returns the state of a token after each node ``[B, D] float32``; nodes of a tree side by side."""
        found = np.empty((len(nodes), self.model.config.hidden_size), np.float32)
        for rows in self._batches(nodes, [1] * len(nodes)):
            states = self._decoding([nodes[row] for row in rows]).advance(torch.tensor([tokens[row] for row in rows]))
            found[rows] = states.float().cpu().numpy()
        return found

    def ends(self, tree: int, nodes: np.ndarray) -> np.ndarray:
        """Returns where nodes of a tree are kept ``[n] int64``; -1 is the prompt's last token."""
        return int(self._start[tree]) + len(self.trees[tree].prompt) - self._shared + nodes

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
        groups: list[list[int]] = []
        for row, (owner, _) in enumerate(nodes):
            if not groups or nodes[groups[-1][-1]][0] != owner:
                groups.append([])
            groups[-1].append(row)
        batches: list[list[int]] = []
        trees, widest = 0, 0
        for group in groups:
            width = self._shared + self._length(nodes[group[0]][0]) + sum(limits[row] for row in group)
            widest = max(widest, width)
            if not batches or (trees + 1) * widest > HELD:
                batches.append([])
                trees, widest = 0, width
            batches[-1] += group
            trees += 1
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
            decoding = self._decoding([nodes[row] for row in active])
            states = decoding.advance(torch.tensor([tokens[row] for row in active]))
            length = context_length(self.model)
            check_length(int(decoding.positions.max()) + 1, name=self.model.name, limit=length)
        while active:
            chosen = self.model.likeliest(states)  # [R]
            step += 1
            last_position = decoding.positions.tolist()
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
                decoding.keep(index.to(self.model.device))
                chosen = chosen[index]
            states = decoding.advance(chosen)
        for row, continuation in ended.items():
            made[row] = continuation

    def _decoding(self, nodes: Sequence[tuple[int, int]]) -> TreeDecoding:
        """Returns continuations of some nodes, those of a tree side by side, before their first token."""
        trees = list(dict.fromkeys(owner for owner, _ in nodes))
        rows = np.array([trees.index(owner) for owner, _ in nodes], np.int64)
        before = [self._places_of(tree, np.arange(self.trees[tree].size)) for tree in trees]
        width = max(map(len, before))
        columns = np.zeros((len(trees), width), np.int64)  # [B, C]
        visible = np.zeros((len(nodes), width), bool)  # [R, C]
        for row, tree in enumerate(trees):
            prompt = len(self.trees[tree].prompt)
            columns[row, : len(before[row])] = [*range(prompt), *(prompt - 1 + self.trees[tree].depths())]
            for place in np.flatnonzero(rows == row).tolist():
                visible[place, :prompt] = True
                visible[place, prompt + np.array(self._above(tree, nodes[place][1]), np.int64)] = True
        padded = np.stack([np.pad(places, (0, width - len(places))) for places in before])
        last = visible.sum(axis=1) - 1
        on = [torch.from_numpy(array).to(self.model.device) for array in (columns, rows, visible, last)]
        return TreeDecoding(
            self.model, self._cache_of(padded), columns=on[0], rows=on[1], visible=on[2], positions=on[3]
        )

    def _above(self, tree: int, node: int) -> list[int]:
        """Returns a node and the ones above it, none for the prompt."""
        path = []
        while node >= 0:
            path.append(node)
            node = int(self.trees[tree].parents[node])
        return path

    def _cache_of(self, places: np.ndarray) -> Any:
        """Returns the keys and values at some places ``[B, C]``."""
        from transformers import DynamicCache

        where = torch.from_numpy(places).to(self.model.device)
        cache: Any = DynamicCache()
        for layer, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            cache.update(keys[where].transpose(1, 2), values[where].transpose(1, 2), layer)  # [B, H, C, head size]
        return cache
