"""TreeWorld: a token tree made ready for stepping: its reward table, its ends, its features, and what the lanes share.

Letters: B lanes, N nodes, R roots, K actions, D size of an observation, T reward terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces

from treegym.checks import number, one_of, whole
from treegym.envs.spaces import Spaces
from treegym.envs.states import origin_of
from treegym.envs.token_tree import transition
from treegym.envs.token_tree.features import (
    LOGP_FLOOR,
    child_features,
    fill_path_logp,
    fill_root_index,
    layout_of,
    observation_bounds,
)
from treegym.envs.token_tree.judging import Judging
from treegym.envs.token_tree.tables import NodeTables, Stretch, TokenWindows
from treegym.errors import ConfigError
from treegym.rewards import build, build_terminal
from treegym.tree.curriculum import practised, primary_success
from treegym.tree.flags import EXPANDED
from treegym.tree.opening import load_tree
from treegym.tree.pictures import LAST_TOKEN
from treegym.tree.solve import Solution, solve
from treegym.tree.token_tree import SPLITS, TokenTree

__all__ = ["VIEWS", "Grower", "TreeWorld"]

VIEWS = ("features", "tokens")


class Grower(Protocol):
    """Grows a live tree where an episode gets to its edge."""

    def grow(self, tree: TokenTree, nodes: np.ndarray) -> None:
        """Expands all of `nodes` (distinct, unexpanded, no ends), in one model call for the whole batch."""
        ...


class TreeWorld(Spaces):
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
        curriculum: str | None = None,
        grower: Grower | None = None,
    ) -> None:
        self.view = one_of("view", view, VIEWS)
        self.max_tokens = whole("max_tokens", max_tokens, low=2)
        self.num_actions = whole("max_children", max_children, low=1)
        self.illegal_penalty = number("illegal_penalty", illegal_penalty, low=0)
        self.tree = load_tree(tree)
        self.grower = grower
        self.split = split
        self.reward = build(reward)
        budget = build_terminal(terminal).budget  # a budget among the detectors cuts off earlier
        if budget == 1:
            raise ConfigError("the terminal's budget is 1 token, which would cut off every episode at its first step")
        self.token_limit = max_tokens if budget is None else min(max_tokens, budget)
        self.layout = layout_of(self.tree, self.num_actions)
        self.layout_size, self.width = self.layout.size, len(self.layout.child)
        self.low, self.high = observation_bounds(self.layout)
        self.pool = self._choose_pool(split, curriculum)
        self.version = 0  # goes up when a table is replaced
        self.tables = NodeTables(self.tree, width=self.width, terms=len(self.reward.names))
        stretch = self._stretch()
        self._judging = Judging(
            self.tables, stretch, reward=self.reward, terminal=build_terminal(terminal), token_limit=self.token_limit
        )
        self.table = self._judging.table
        self._fill(stretch, stretch.parents)
        self.windows = None
        if self.view == "tokens":
            self.windows = TokenWindows(self.tables, num_actions=self.num_actions, max_tokens=self.max_tokens)
        self._check_correct_end()

    @property
    def terms(self) -> Sequence[str]:  # type: ignore[override] # the reward decides
        """The terms of the vector reward, in order."""
        return self.table.names

    @property
    def views(self) -> Mapping[str, spaces.Space]:
        """Token ids, in the tokens view."""
        if self.windows is None:
            return {}
        largest = self.tree.vocab_size - 1
        read = LAST_TOKEN if self.windows.sees_pictures else largest
        return {
            "context": spaces.Box(-1, read, (self.windows.length,), np.int32),
            "children": spaces.Box(-1, largest, (self.num_actions,), np.int32),
        }

    @cached_property
    def origin(self) -> int:
        """A number for this world, which the states of its lanes carry; a tree that grows is told by its roots."""
        tree = self.tree
        fixed = [tree.vocab_size, tree.eos_id, list(tree.teachers), self.max_tokens, self.token_limit]
        grown = tree.token[: tree.num_roots if self.grower is not None else tree.size]
        return origin_of([*fixed, self.num_actions, self.view], np.asarray(tree.root_node), np.asarray(grown))

    # ---------------------------------------------------------------- making

    def _choose_pool(self, split: str, curriculum: str | None) -> np.ndarray:
        pool = self.tree.roots_in(split)
        if not len(pool):
            there = ", ".join(f"{name}: {len(self.tree.roots_in(name))}" for name in SPLITS)
            raise ConfigError(f"the tree has no roots in split {split!r} ({there}); choose another split")
        if curriculum is None:
            return pool
        if self.grower is not None:
            raise ConfigError("a curriculum needs a closed tree: in one that grows, the primary's success is not known")
        return pool[practised(primary_success(self.tree, pool), curriculum)]

    def _extend(self) -> None:
        """Extends the tables over nodes that a live tree has grown: the cost is that of the new."""
        stretch = self._stretch()
        self._fill(stretch, self._judging.decide(stretch))

    def _stretch(self) -> Stretch:
        """Refuses new nodes that have too many children, and makes room for the others."""
        stretch = self.tables.stretch()
        self._check_width(stretch.nodes)
        self._check_width(stretch.parents)
        self.tables.extend()
        return stretch

    def _fill(self, stretch: Stretch, turned: np.ndarray) -> None:
        """Computes the rows of new nodes, and again what old ones pay that `turned` out to be ends."""
        tree, tables = self.tree, self.tables
        fill_path_logp(tree, tables.path_logp, stretch.fresh.start)
        fill_root_index(tree, tables.root_index, stretch.fresh.start)
        tables.features[stretch.fresh] = child_features(tree, stretch.fresh, tables.ends)
        self._judging.pay(stretch, turned)
        self.root_node = tree.root_node
        tables.fill_cells(stretch, self.root_node, self.table)
        self._judging.tell(turned)
        self.needs_preparation = self.grower is not None or not self._judging.complete
        self.version += 1

    def _check_width(self, nodes: np.ndarray) -> None:
        counts = self.tree.child_count[nodes]
        if len(counts) and counts.max() > self.num_actions:
            node = int(nodes[np.argmax(counts)])
            raise ConfigError(
                f"node {node} has {counts.max()} children, but max_children is {self.num_actions}; "
                f"pass max_children={counts.max()} or more"
            )

    def _check_correct_end(self) -> None:
        known = self.grower is None and not self.tables.unjudged.any()
        if known and "verifier" in self.table.names and not self.right.any():
            raise ConfigError(
                "the tree has no correct end under any root, so the verifier's reward could never be earned; "
                "grow it with better teachers, or choose another reward"
            )

    # ---------------------------------------------------------------- stepping

    def prepare_nodes(self, nodes: np.ndarray) -> None:
        """Makes nodes ready to be stood on: grown, where the tree is live, and judged."""
        if self.grower is not None:
            self._grow(self.grower, nodes)
        self._judging.judge(nodes)

    def _grow(self, grower: Grower, nodes: np.ndarray) -> None:
        """Lets the tree grow where nodes are at its edge."""
        tables = self.tables
        if self.tree.size != tables.size:  # another world of this tree has let it grow
            self._extend()
        edge = np.unique(nodes[(tables.first_child[nodes] < 0) & ~tables.ends[nodes] & ~tables.cut_off[nodes]])
        edge = edge[(self.tree.flags[edge] & EXPANDED) == 0]
        if len(edge):
            grower.grow(self.tree, edge)
            self._extend()

    def next_nodes(self, nodes: np.ndarray, actions: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Returns where legal actions lead ``[B]`` (nodes that are done or badly stepped stay)."""
        legal = (actions >= 0) & (actions < self.tables.child_count[nodes]) & ~done
        return np.where(legal, self.tables.first_child[nodes] + actions, nodes)

    def observe(self, nodes: np.ndarray, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Returns fresh observations of nodes, after so many steps each."""
        seen = self.blank_observations(len(nodes))
        transition.observe(
            nodes, steps, self.tables.cells, self.tables.flat_features, self.width, LOGP_FLOOR, self.max_tokens,
            seen["observations"].reshape(-1), seen["action_mask"].reshape(-1),
        )  # fmt: skip
        if self.windows is not None:
            seen |= self.windows.around(nodes)
        return seen

    def blank_observations(self, count: int) -> dict[str, np.ndarray]:
        """Returns memory for observations, to be written over."""
        return {
            "observations": np.empty((count, self.layout_size), np.float32),
            "action_mask": np.empty((count, self.num_actions), np.int8),
        }

    @property
    def right(self) -> np.ndarray:
        """Which nodes are correct ends ``[N] bool``."""
        return self.tables.cells["right"]

    # ---------------------------------------------------------------- judging

    def raw(self, nodes: np.ndarray) -> np.ndarray:
        """Returns what coming to nodes pays before it is shaped ``[b]``."""
        return self.table.raw(nodes)

    def raw_terms(self, nodes: np.ndarray) -> np.ndarray:
        """Returns the reward terms in the table at nodes ``[b, T]``: a failure is NaN, never a score."""
        return self.table.terms[nodes]

    def correct(self, nodes: np.ndarray) -> np.ndarray:
        """Returns whether each node is a correct end ``[B] bool``."""
        if self.tables.unjudged[nodes].any():
            self.prepare_nodes(nodes)
        return self.right[nodes]

    def solution(self, discount: float = 1.0) -> Solution:
        """Returns the exact optimum of every node under this reward, terminal rule and budget."""
        everywhere = np.arange(self.tree.size)
        if self.needs_preparation:
            self.prepare_nodes(everywhere)
        reward = np.where(self.tree.parent < 0, 0.0, self.tables.cells["pays"])
        ends, limit = self.tables.ends, self.token_limit
        return solve(self.tree, reward, discount=discount, terminal=ends, correct=self.right, max_depth=limit)

    def refresh_weights(self) -> None:
        """Recomputes what is seen after the tree's child weights or the primary's columns changed."""
        everything = slice(0, self.tree.size)
        fill_path_logp(self.tree, self.tables.path_logp)
        self.tables.cells["path_logp"] = self.tables.path_logp
        if self.tree.has("context"):
            self.tables.cells["context"] = np.maximum(self.tree.context, -127)
        self.tables.features[:] = child_features(self.tree, everything, self.tables.ends)
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
        self._judging.tell(slice(None))
