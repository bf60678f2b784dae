"""Search on a closed tree: every node known, judged by tables, whole searches inside one kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from treegym.errors import ConfigError
from treegym.search.base import SearchResult
from treegym.search.kernels import closed
from treegym.search.output import in_parts, new_out, part_of, root_ids_of, root_noise, scratch
from treegym.search.planner import new_roots
from treegym.search.settings import is_plain, kernel_settings, make_options
from treegym.search.tree import aligned, allocate

__all__ = ["World", "search_closed"]


class World(NamedTuple):
    """A closed tree and its judgement, as flat arrays; the children of a node stand side by side."""

    first_child: np.ndarray  # [N] int32, -1 where there are no children
    child_count: np.ndarray  # [N] uint16
    terminal: np.ndarray  # [N] bool
    reward: np.ndarray  # [N] float32, credited on entering the node
    prior_logits: np.ndarray  # [N] float32, of the node after its parent
    value: np.ndarray  # [N] float32, the evaluator's estimate of what comes after the node


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
        first_child: int [N], a node's first child; ``child_count`` [N] of them stand side by side.
        child_count: int [N].
        terminal: bool [N], where episodes end.
        reward: float32 [N], credited on entering the node.
        prior_logits: float32 [N], the policy's logit of the node among its siblings.
        value: float32 [N], the value network's estimate of the return after the node.
        roots: int [B], nodes to search from (any node that is not terminal).
        num_simulations: simulations a root.
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
    if num_simulations < 1:
        raise ConfigError(f"num_simulations is {num_simulations}; it must be at least 1")
    world = World(
        np.ascontiguousarray(first_child, np.int32),
        np.ascontiguousarray(child_count, np.uint16),
        np.ascontiguousarray(terminal, np.bool_),
        np.ascontiguousarray(reward, np.float32),
        np.ascontiguousarray(prior_logits, np.float32),
        np.ascontiguousarray(value, np.float32),
    )
    start = np.ascontiguousarray(roots, np.int32)
    widest = _check(world, start)
    actions = widest if num_actions is None else int(num_actions)
    if actions < widest:
        raise ConfigError(f"num_actions is {actions}, but a node has {widest} children")
    size = len(start)
    ids = root_ids_of(root_ids, size)
    prepared = kernel_settings(
        method, settings, simulations=num_simulations, visits=num_simulations + 1, seed=int(seed)
    )
    noise = root_noise(method, settings, int(seed), ids, world.child_count[start], widest)
    out = new_out(size, actions)
    problems = np.zeros(size, np.int64)

    nodes = num_simulations + 1

    def make() -> tuple[Any, ...]:
        trees, root = allocate(1, nodes, widest), new_roots(np.zeros(1, np.int64), widest)
        desk = (np.empty(nodes, np.int32), aligned((widest,), np.float32), *np.empty((2, nodes + 1), np.int32))
        return type(trees)(*(array[0] for array in trees)), type(root)(*(array[0] for array in root)), *desk

    def work(part: slice) -> None:
        tree, root, *desk = scratch(("closed", nodes, widest), make)
        closed.search_roots(prepared.rule, is_plain(prepared))(
            tree,
            root,
            world,
            *desk,
            start[part],
            ids[part],
            prepared,
            num_simulations,
            noise._replace(gammas=noise.gammas[part]) if len(noise.gammas) > 1 else noise,
            part_of(out, part),
            problems[part],
        )

    in_parts(work, size, num_threads)
    wrong = np.flatnonzero(problems)
    if len(wrong):
        node = int(problems[wrong[0]]) - 1
        raise ConfigError(
            f"from root {int(start[wrong[0]])}: the value of node {node} ({world.value[node]}) or the prior logits of "
            "its children are NaN, infinite, or all -inf"
        )
    return out.result()


def _check(world: World, roots: np.ndarray) -> int:
    """Returns the largest number of children, after checking that no kernel can read outside the arrays."""
    size = len(world.first_child)
    for name, array in zip(World._fields, world, strict=True):
        if array.shape != (size,):
            raise ConfigError(f"{name} has shape {array.shape}; expected {(size,)} like first_child")
    if roots.ndim != 1:
        raise ConfigError(f"roots have shape {roots.shape}; expected [roots]")
    node, widest = closed.check_structure(world.first_child, world.child_count, world.terminal)
    if node >= 0:
        raise ConfigError(
            f"node {node} has {world.child_count[node]} children from {world.first_child[node]}; "
            f"the tree ends at {size}"
        )
    bad = np.flatnonzero((roots < 0) | (roots >= size))
    if len(bad):
        raise ConfigError(f"root {int(roots[bad[0]])} (row {int(bad[0])}) is out of range; the tree has {size} nodes")
    stuck = np.flatnonzero(world.terminal[roots] | (world.child_count[roots] == 0))
    if len(stuck):
        raise ConfigError(f"root {int(roots[stuck[0]])} (row {int(stuck[0])}) is terminal or has no children")
    return int(max(widest, 1))
