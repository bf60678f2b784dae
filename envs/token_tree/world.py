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
    layout_of,
    observation_bounds,
    path_logp,
    root_index,
)
from treegym.envs.token_tree.flags import END, EXPANDED
from treegym.envs.token_tree.solve import Solution, solve
from treegym.envs.token_tree.synthetic import parse_synthetic, synthetic_tree
from treegym.envs.token_tree.tree import SPLITS, TokenTree
from treegym.errors import ConfigError
from treegym.rewards import build, build_terminal

__all__ = ["BUNDLED", "VIEWS", "Grower", "TreeWorld", "load_tree"]

BUNDLED = Path(__file__).parent / "data" / "bundled.tree"
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
        self.token_limit = max_tokens if budget is None else min(max_tokens, budget)
        self.layout = layout_of(self.tree, max_children)
        self.layout_size, self.width = self.layout.size, len(self.layout.child)
        self.low, self.high = observation_bounds(self.layout)
        self.pool = self._choose_pool(split)
        self._size = 0
        self.version = 0  # goes up when a table is replaced
        self.path_logp = np.empty(0, np.float32)  # [N]
        self.root_index = np.empty(0, np.int32)  # [N]
        self.features = np.empty((0, self.width), np.float32)  # [N, F]
        self.terms = np.empty((0, 0), np.float32)  # [N, T] raw reward terms
        self.cells = np.empty(0, transition.CELL)  # [N] what stepping looks up
        self.unjudged = np.empty(0, bool)  # [N] ends that nobody has verified yet
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
        """Computes the tables, or extends them over nodes that a live tree has grown."""
        tree, old = self.tree, self._size
        self._check_width(old)
        fresh = slice(old, tree.size)
        self.ends = ((tree.flags & END) != 0) | np.asarray(self._terminal.on(tree), bool)
        self.cut_off = (tree.depth >= self.token_limit) & ~self.ends
        self.path_logp = path_logp(tree, self.path_logp)
        self.root_index = root_index(tree, self.root_index)
        self._set_features(np.concatenate([self.features, child_features(tree, fresh, self.ends)]))
        self.first_child, self.child_count, self.root_node = tree.first_child, tree.child_count, tree.root_node
        self.token = tree.token
        if old == 0:
            look_up_ends, look_up_cut = lambda nodes: self.ends[nodes], lambda nodes: self.cut_off[nodes]
            self.table = self.reward.on(tree, ends=look_up_ends, truncated=look_up_cut)
            self._verifier = build({"verifier": 1.0}).on(tree, ends=look_up_ends)
            if self.view == "tokens":
                self._prepare_prompts()
        else:
            self.table.ensure(np.arange(0))  # lets it grow with the tree
        complete = self.table.complete
        new_terms = self.table.vector(np.arange(old, tree.size)) if complete else self._no_terms(tree.size - old)
        self.terms = np.concatenate([self.terms, new_terms]) if old else np.ascontiguousarray(new_terms)
        self.unjudged = np.concatenate([self.unjudged, self.ends[fresh] & np.isnan(tree.verdict[fresh])])
        self._fill_cells(fresh)
        self.needs_preparation = self.grower is not None or not complete or bool(self.unjudged.any())
        self._size = tree.size

    def _fill_cells(self, fresh: slice) -> None:
        """Lays out what stepping needs of every node; parents of new nodes have changed, too."""
        tree = self.tree
        cells = np.zeros(tree.size, transition.CELL)  # [N]
        cells[: fresh.start] = self.cells
        cells["first"], cells["count"], cells["end"] = tree.first_child, tree.child_count, self.ends
        cells["right"][fresh] = self.ends[fresh] & (tree.verdict[fresh] >= 0.5)
        cells["path_logp"] = self.path_logp
        cells["root"] = tree.root_node[self.root_index]
        cells["pays"] = self.table.total
        if tree.has("context"):
            cells["context"] = tree.context
        self.cells = cells

    def _no_terms(self, count: int) -> np.ndarray:
        return np.zeros((count, len(self.table.names)), np.float32)

    def _check_width(self, start: int) -> None:
        counts = self.tree.child_count[start:]
        if len(counts) and counts.max() > self.num_actions:
            node = start + int(np.argmax(counts))
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
        """Recomputes the features after the tree's child weights or the primary's columns changed."""
        self.path_logp = path_logp(self.tree)
        self.cells["path_logp"] = self.path_logp
        self._set_features(child_features(self.tree, slice(0, self.tree.size), self.ends))

    def _set_features(self, table: np.ndarray) -> None:
        self.version += 1
        self.features = table  # [N, F]
        self.flat_features = table.reshape(-1)
