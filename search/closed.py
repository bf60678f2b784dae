"""Search on a closed tree: every node known, judged by tables, whole searches inside one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.search.api import search
from treegym.search.checks import positive, real_numbers, whole_numbers
from treegym.search.kernels.numeric import LARGEST
from treegym.search.kernels.worlds import NUMBERS, PER_NODE, ClosedWorld
from treegym.search.settings import TREE_RULES, make_options
from treegym.search.simulator import Evaluation, SearchResult, Transition
from treegym.search.whole import search_whole

__all__ = ["ClosedTree", "search_closed"]


def search_closed(
    *,
    first_child: np.ndarray,
    child_count: np.ndarray,
    terminal: np.ndarray,
    reward: np.ndarray,
    prior_logits: np.ndarray,
    value: np.ndarray,
    roots: np.ndarray,
    num_simulations: int,
    method: str = "gumbel",
    num_actions: int | None = None,
    seed: int = 0,
    root_ids: np.ndarray | None = None,
    num_threads: int = 1,
    **options: Any,
) -> SearchResult:
    """Searches a closed tree from each of B roots; action k means the k-th child.

    Args:
        first_child: int [N], a node's first child; its ``child_count`` [N] children are neighbours.
        child_count: int [N].
        terminal: bool [N], where episodes end.
        reward: float32 [N], credited on entering the node.
        prior_logits: float32 [N], the policy's logit of the node among its siblings.
        value: float32 [N], the value network's estimate of the return after the node.
        roots: int [B], nodes to search from (any node that is not terminal).
        num_simulations: simulations per root.
        method: one of the tree methods: "gumbel", "puct", "uct", "similarity", "ments", "rents".
        num_actions: columns of the result; the widest node's children unless given.
        seed: seeds all noise.
        root_ids: int [B], names of the roots' random streams; 0 .. B - 1 unless given.
        num_threads: threads that share the roots; the result does not depend on it.
        **options: settings of the method, see `treegym.search.settings.Options`.

    Raises:
        ConfigError: for arrays that do not fit each other, roots out of range or without children, NaN in the tables.
    """
    settings = make_options(options)
    if settings.transpositions or settings.widen_factor > 0:
        raise ConfigError("a closed tree has neither transpositions nor widening; search it through a simulator")
    if settings.players > 1:
        raise ConfigError("a closed tree does not say whose turn it is; with two players in turn, discount is -1")
    world = ClosedWorld(
        whole_numbers("first_child", first_child, np.int32),
        whole_numbers("child_count", child_count, np.uint16),
        _truths("terminal", terminal),
        real_numbers("reward", reward),
        real_numbers("prior_logits", prior_logits),
        real_numbers("value", value),
    )
    start = whole_numbers("roots", roots, np.int32).copy()
    widest = _check(world, start, num_actions)

    def make_place(lanes: int, nodes: int) -> np.ndarray:
        return np.empty((lanes, nodes), np.int32)

    out, problems = search_whole(
        world,
        start,
        make_place,
        widths=lambda: world.child_count[start],
        slots=widest,
        actions=widest,
        method=method,
        num_simulations=num_simulations,
        options=settings,
        seed=seed,
        root_ids=root_ids,
        num_threads=num_threads,
    )
    if problems.any():
        row = int(np.flatnonzero(problems)[0])
        raise ConfigError(f"from root {int(start[row])}: {_problem(world, -1 - int(problems[row]), widest)}")
    return out.result()


@dataclass
class ClosedTree:
    """A closed tree with its judgement as a `Simulator`: a state is a node. The arrays are those of `search_closed`.

    Tree methods search it in one kernel, all others through the protocol.
    """

    first_child: np.ndarray  # [N] int32
    child_count: np.ndarray  # [N] uint16
    terminal: np.ndarray  # [N] bool
    reward: np.ndarray  # [N] float32
    prior_logits: np.ndarray  # [N] float32
    value: np.ndarray  # [N] float32
    num_actions: int

    def expand(self, states: np.ndarray) -> Evaluation:
        slot = np.arange(self.num_actions)
        legal = slot < self.child_count[states].astype(np.int64)[:, None]
        children = self.first_child[states].astype(np.int64)[:, None] + np.where(legal, slot, 0)
        logits = np.where(legal, self.prior_logits[children], np.float32(0.0))
        return Evaluation(logits, self.value[states], legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        after = self.first_child[states].astype(np.int64) + actions
        return Transition(after, self.reward[after], self.terminal[after])

    def search(
        self, states: np.ndarray, *, method: str, num_simulations: int, seed: int = 0, **options: Any
    ) -> SearchResult:
        """Plans from nodes; options as in `treegym.search.search`."""
        asked: dict[str, Any] = {"method": method, "num_simulations": num_simulations, "seed": seed, **options}
        if method not in TREE_RULES or options.get("answers"):
            return search(self, states, **asked)
        return search_closed(roots=states, **vars(self), **asked)


def _truths(name: str, given: Any) -> np.ndarray:
    array = np.asarray(given)
    if array.dtype != np.bool_ and not (np.issubdtype(array.dtype, np.integer) and ((array == 0) | (array == 1)).all()):
        raise ConfigError(f"{name} holds {array.dtype} numbers; it must hold True and False")
    return np.ascontiguousarray(array, np.bool_)


def _problem(world: ClosedWorld, code: int, widest: int) -> str:
    node, kind = divmod(code, PER_NODE)
    if kind == NUMBERS:
        return (
            f"the reward ({world.reward[node]}) or value ({world.value[node]}) of node {node} or the prior logits of "
            f"its children are NaN, infinite, beyond {LARGEST:g}, or all -inf"
        )
    count, first = world.child_count[node], world.first_child[node]
    if count > widest:
        return f"num_actions is {widest}, but a node has {count} children: node {node}"
    return f"node {node} has {count} children from {first}; the tree ends at {len(world.first_child)}"


def _check(world: ClosedWorld, roots: np.ndarray, num_actions: int | None) -> int:
    """Returns the slots a node needs, after checking the shapes and the roots.

    Nodes further down are checked by the kernel as it reaches them, so that a search costs the same in any tree.
    """
    size = len(world.first_child)
    for name, array in zip(ClosedWorld._fields, world, strict=True):
        if array.shape != (size,):
            raise ConfigError(f"{name} has shape {array.shape}; expected {(size,)} like first_child")
    if roots.ndim != 1:
        raise ConfigError(f"roots have shape {roots.shape}; expected [roots]")
    bad = np.flatnonzero((roots < 0) | (roots >= size))
    if len(bad):
        raise ConfigError(f"root {int(roots[bad[0]])} (row {int(bad[0])}) is out of range; the tree has {size} nodes")
    stuck = np.flatnonzero(world.terminal[roots] | (world.child_count[roots] == 0))
    if len(stuck):
        raise ConfigError(f"root {int(roots[stuck[0]])} (row {int(stuck[0])}) is terminal or has no children")
    if num_actions is None:
        return int(world.child_count.max(initial=1))
    return positive("num_actions", num_actions)
