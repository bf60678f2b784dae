"""TreeWorld: a token tree made ready for stepping: its reward table, its ends, its features, and what the lanes share.

Letters: B lanes, N nodes, R roots, K actions, D size of an observation, T reward terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from treegym.envs.token_tree import transition
from treegym.envs.token_tree.features import (
    LOGP_FLOOR,
    child_features,
    fill_path_logp,
    fill_root_index,
    layout_of,
    observation_bounds,
)
from treegym.errors import ConfigError
from treegym.rewards import build, build_terminal
from treegym.tree.flags import END, EXPANDED
from treegym.tree.solve import Solution, solve
from treegym.tree.synthetic import parse_synthetic, synthetic_tree
from treegym.tree.token_tree import BUNDLED, SPLITS, TokenTree

__all__ = ["VIEWS", "Grower", "TreeWorld", "load_tree"]

VIEWS = ("features", "tokens")
_REMEMBERED = 4
_opened: dict[str, TokenTree] = {}  # the trees opened last: many environments share one


class Grower(Protocol):
    """Grows a live tree where an episode gets to its edge."""

    def grow(self, tree: TokenTree, nodes: np.ndarray) -> None:
        """Expands all of `nodes` (distinct, unexpanded, no ends), in one model call for the whole batch."""
        ...


def load_tree(tree: str | TokenTree | None) -> TokenTree:
    """Returns a tree: the bundled one for None, a synthetic one for ``"synthetic:..."``, or the one in a file."""
    if isinstance(tree, TokenTree):
        tree.validate()
        return tree
    if isinstance(tree, str) and tree.split(":", 1)[0] == "synthetic":
        settings = parse_synthetic(tree)
        return _remembered(repr(settings), lambda: synthetic_tree(**vars(settings)))
    if tree is not None and not isinstance(tree, str | Path):
        raise ConfigError(f"tree is {tree!r}; expected a .tree file's path, 'synthetic:...' or a TokenTree")
    path = BUNDLED if tree is None else Path(tree)
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    return _remembered(f"{path.resolve()} {changed}", lambda: TokenTree.open(path))


def _remembered(key: str, make: Callable[[], TokenTree]) -> TokenTree:
    if key not in _opened:
        tree = make()
        tree.validate()
        while len(_opened) >= _REMEMBERED:
            _opened.pop(next(iter(_opened)))
        _opened[key] = tree
    return _opened[key]


class TreeWorld:
    """Everything the transition kernels look things up in. Shared by all lanes; changes only when a live tree grows."""

    ends: np.ndarray  # [N] bool, where episodes end
    cut_off: np.ndarray  # [N] bool, where the budget does
    unjudged: np.ndarray  # [N] bool, ends that nobody has verified yet
    path_logp: np.ndarray  # [N] float32, the primary's log-probability of the path
    root_index: np.ndarray  # [N] int32
    features: np.ndarray  # [N, F] float32, each node as a child
    terms: np.ndarray  # [N, T] float32, raw reward terms
    cells: np.ndarray  # [N] what stepping looks up

    def __init__(
        self,
        tree: str | TokenTree | None = None,
        *,
        split: str = "train",
        reward: Mapping[str, Any] | str | None = None,
        terminal: Any = "eos",
        max_tokens: int = 48,
        max_children: int = 16,
        view: str = "features",
        illegal_penalty: float = 0.1,
        grower: Grower | None = None,
    ) -> None:
        if view not in VIEWS:
            raise ConfigError(f"view is {view!r}; it must be one of {', '.join(VIEWS)}")
        for name, value, low in (("max_tokens", max_tokens, 2), ("max_children", max_children, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {low}")
        if not isinstance(illegal_penalty, int | float) or not 0 <= illegal_penalty < np.inf:
            raise ConfigError(f"illegal_penalty is {illegal_penalty!r}; it must be a number of at least 0")
        self.tree = load_tree(tree)
        self.max_tokens, self.num_actions = max_tokens, max_children
        self.view, self.illegal_penalty, self.grower = view, float(illegal_penalty), grower
        self.split = split
        self.reward = build(reward)
        self._terminal = build_terminal(terminal)
        budget = self._terminal.budget  # a budget among the detectors cuts off earlier
        if budget == 1:
            raise ConfigError("the terminal's budget is 1 token, which would cut off every episode at its first step")
        self.token_limit = max_tokens if budget is None else min(max_tokens, budget)
        self.layout = layout_of(self.tree, max_children)
        self.layout_size, self.width = self.layout.size, len(self.layout.child)
        self.low, self.high = observation_bounds(self.layout)
        self.pool = self._choose_pool(split)
        self._size = 0
        self.version = 0  # goes up when a table is replaced
        self._tables: dict[str, np.ndarray] = {}  # [capacity, ...] what the attributes set by `_make_room` are parts of
        self._decided = self._terminal.decisions(self.tree)
        self._prepare()
        self._check_correct_end()

    # ---------------------------------------------------------------- making

    def _choose_pool(self, split: str) -> np.ndarray:
        pool = self.tree.roots_in(split)
        if not len(pool):
            there = ", ".join(f"{name}: {len(self.tree.roots_in(name))}" for name in SPLITS)
            raise ConfigError(f"the tree has no roots in split {split!r} ({there}); choose another split")
        return pool

    def _prepare(self) -> None:
        """Computes the tables, or extends them over nodes that a live tree has grown: the cost is that of the new."""
        tree, old = self.tree, self._size
        fresh, nodes = slice(old, tree.size), np.arange(old, tree.size)
        parents = np.unique(tree.parent[fresh]).astype(np.int64) if old else nodes[:0]
        parents = parents[(parents >= 0) & (parents < old)]  # have children now
        self._check_width(nodes)
        self._check_width(parents)
        self._make_room(tree.size)
        self.first_child, self.child_count, self.token = tree.first_child, tree.child_count, tree.token
        self._decide(nodes)
        turned = self._decide_again(parents) if self._terminal.looks_ahead else parents[:0]
        self.cut_off[fresh] = (tree.depth[fresh] >= self.token_limit) & ~self.ends[fresh]
        fill_path_logp(tree, self.path_logp, old)
        fill_root_index(tree, self.root_index, old)
        self.features[fresh] = child_features(tree, fresh, self.ends)
        if old == 0:
            self.root_node = tree.root_node
            self.table = self.reward.on(tree, ends=self._ends_at, truncated=self._cut_off_at)
            self._verifier = build({"verifier": 1.0}).on(tree, ends=self._ends_at)
            if self.view == "tokens":
                self._prepare_prompts()
        for table in (self.table, self._verifier):
            table.forget(turned)
            table.ensure(turned)  # lets it grow with the tree, too
        complete = self.table.complete
        self.terms[fresh] = self.table.vector(nodes) if complete else 0.0
        self.terms[turned] = self.table.vector(turned)
        for part in (fresh, turned):
            self.unjudged[part] = self.ends[part] & np.isnan(tree.verdict[part])
        self._fill_cells(fresh, parents)
        self.cells["pays"][turned] = self.table.total[turned]
        self.needs_preparation = self.grower is not None or not complete or bool(self.unjudged.any())
        self._size = tree.size
        self.version += 1

    def _make_room(self, size: int) -> None:
        """Makes every table `size` long; their memory doubles, so that growing costs what the new nodes cost."""
        kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
            "ends": (bool, ()),
            "cut_off": (bool, ()),
            "unjudged": (bool, ()),
            "path_logp": (np.float32, ()),
            "root_index": (np.int32, ()),
            "features": (np.float32, (self.width,)),
            "terms": (np.float32, (len(self.reward.names),)),
            "cells": (transition.CELL, ()),
        }
        for name, (dtype, shape) in kinds.items():
            table = self._tables.get(name)
            if table is None or len(table) < size:
                capacity = size if table is None else max(size, 2 * len(table))
                grown = np.zeros((capacity, *shape), dtype)
                if table is not None:
                    grown[: self._size] = table[: self._size]
                table = self._tables[name] = grown
            setattr(self, name, table[:size])
        self.flat_features = self.features.reshape(-1)

    def _decide(self, nodes: np.ndarray) -> None:
        """Asks the terminal detector where episodes end; a real end is one in any case."""
        self.ends[nodes] = ((self.tree.flags[nodes] & END) != 0) | self._decided(nodes)

    def _decide_again(self, nodes: np.ndarray) -> np.ndarray:
        """Decides nodes once more whose children are known now; returns those that turned out to be ends."""
        self._decided.forget(nodes)
        self._decide(nodes)
        return nodes[self.ends[nodes]]

    def _ends_at(self, nodes: np.ndarray) -> np.ndarray:
        return self.ends[nodes]

    def _cut_off_at(self, nodes: np.ndarray) -> np.ndarray:
        return self.cut_off[nodes]

    def _fill_cells(self, fresh: slice, parents: np.ndarray) -> None:
        """Lays out what stepping needs of the new nodes, and of their parents, which have children now."""
        tree, cells = self.tree, self.cells
        for part in (fresh, parents):
            cells["first"][part], cells["count"][part] = tree.first_child[part], tree.child_count[part]
            cells["end"][part] = self.ends[part]
            cells["right"][part] = self.ends[part] & (tree.verdict[part] >= 0.5)
        cells["path_logp"][fresh] = self.path_logp[fresh]
        cells["root"][fresh] = self.root_node[self.root_index[fresh]]
        cells["pays"][fresh] = self.table.total[fresh]
        if tree.has("context"):
            cells["context"][fresh] = tree.context[fresh]

    def _check_width(self, nodes: np.ndarray) -> None:
        counts = self.tree.child_count[nodes]
        if len(counts) and counts.max() > self.num_actions:
            node = int(nodes[np.argmax(counts)])
            raise ConfigError(
                f"node {node} has {counts.max()} children, but max_children is {self.num_actions}; "
                f"pass max_children={counts.max()} or more"
            )

    def _check_correct_end(self) -> None:
        known = self.grower is None and not self.unjudged.any()
        if known and "verifier" in self.table.names and not self.right.any():
            raise ConfigError(
                "the tree has no correct end under any root, so the verifier's reward could never be earned; "
                "grow it with better teachers, or choose another reward"
            )

    def _prepare_prompts(self) -> None:
        tokens = [root.tokens for root in self.tree.roots]
        self.prompt_start = np.concatenate([[0], np.cumsum([len(t) for t in tokens])]).astype(np.int64)  # [R + 1]
        self.prompt_tokens = np.array([token for prompt in tokens for token in prompt], np.int32)
        self.context_length = int(np.diff(self.prompt_start).max(initial=0)) + self.max_tokens

    # ---------------------------------------------------------------- stepping

    def prepare_nodes(self, nodes: np.ndarray) -> None:
        """Makes nodes ready to be stood on: grown, where the tree is live, and judged."""
        if self.grower is not None:
            if self.tree.size != self._size:  # another world of this tree has let it grow
                self._prepare()
            edge = np.unique(nodes[(self.first_child[nodes] < 0) & ~self.ends[nodes] & ~self.cut_off[nodes]])
            edge = edge[(self.tree.flags[edge] & EXPANDED) == 0]
            if len(edge):
                self.grower.grow(self.tree, edge)
                self._prepare()
        if not self.table.complete:
            self.terms[nodes] = self.table.vector(nodes)
            self.cells["pays"][nodes] = self.table.total[nodes]
        asked = np.unique(nodes[self.unjudged[nodes]])
        if len(asked):
            self._verifier.ensure(asked)
            self.cells["right"][asked] = self._verifier.total[asked] >= 0.5
            self.unjudged[asked] = False

    def next_nodes(self, nodes: np.ndarray, actions: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Returns where legal actions lead ``[B]`` (nodes that are done or badly stepped stay)."""
        legal = (actions >= 0) & (actions < self.child_count[nodes]) & ~done
        return np.where(legal, self.first_child[nodes] + actions, nodes)

    def observe(self, nodes: np.ndarray, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Returns fresh observations of nodes, after so many steps each."""
        seen = self.blank_observations(len(nodes))
        transition.observe(
            nodes, steps, self.cells, self.flat_features, self.width, LOGP_FLOOR, self.max_tokens,
            seen["observations"].reshape(-1), seen["action_mask"].reshape(-1),
        )  # fmt: skip
        if self.view == "tokens":
            seen |= self.tokens_around(nodes)
        return seen

    def blank_observations(self, count: int) -> dict[str, np.ndarray]:
        """Returns memory for observations, to be written over."""
        return {
            "observations": np.empty((count, self.layout_size), np.float32),
            "action_mask": np.empty((count, self.num_actions), np.int8),
        }

    def tokens_around(self, nodes: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the token ids before and after each node: what the view "tokens" adds to observations."""
        tree = self.tree
        context = np.empty((len(nodes), self.context_length), np.int32)
        children = np.empty((len(nodes), self.num_actions), np.int32)
        transition.observe_tokens(
            nodes, self.first_child, self.child_count, tree.parent, tree.token, tree.depth, self.root_index,
            self.prompt_start, self.prompt_tokens, context, children,
        )  # fmt: skip
        return {"context": context, "children": children}

    @property
    def right(self) -> np.ndarray:
        """Which nodes are correct ends ``[N] bool``."""
        return self.cells["right"]

    # ---------------------------------------------------------------- judging

    def correct(self, nodes: np.ndarray) -> np.ndarray:
        """Returns whether each node is a correct end ``[B] bool``."""
        if self.unjudged[nodes].any():
            self.prepare_nodes(nodes)
        return self.right[nodes]

    def solution(self, discount: float = 1.0) -> Solution:
        """Returns the exact optimum of every node under this reward, terminal rule and budget."""
        everywhere = np.arange(self.tree.size)
        if self.needs_preparation:
            self.prepare_nodes(everywhere)
        reward = np.where(self.tree.parent < 0, 0.0, self.cells["pays"])
        return solve(
            self.tree, reward, discount=discount, terminal=self.ends, correct=self.right, max_depth=self.token_limit
        )

    def refresh_weights(self) -> None:
        """Recomputes what is seen after the tree's child weights or the primary's columns changed."""
        everything = slice(0, self.tree.size)
        fill_path_logp(self.tree, self.path_logp)
        self.cells["path_logp"] = self.path_logp
        if self.tree.has("context"):
            self.cells["context"] = self.tree.context
        self.features[:] = child_features(self.tree, everything, self.ends)
        self.version += 1

    def __deepcopy__(self, memo: Any) -> TreeWorld:
        return self  # nothing here belongs to an episode: copies of an environment share it

    @property
    def shaped(self) -> bool:
        """Whether the reward helps learning by terms that evaluations leave out."""
        return any(term.shaping or term.anneal is not None for term in self.reward.part.terms())

    def set_progress(self, progress: float) -> None:
        """Anneals what the reward lets fall over a training: its progress goes from 0 to 1."""
        self.table.set_progress(progress)
        self.cells["pays"] = self.table.total
