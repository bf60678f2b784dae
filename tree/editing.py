"""Trees from trees: merging, cutting out, and counting what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.tree.columns import COLUMNS
from treegym.tree.flags import END
from treegym.tree.solve import solve
from treegym.tree.token_tree import Root, TokenTree

__all__ = ["merge", "select_roots", "statistics", "subtree"]

_LINKS = ("parent", "first_child", "teacher_logp", "proposers", "sampled", "sampled_logp")


def merge(trees: Sequence[TokenTree]) -> TokenTree:
    """Returns one tree with the roots of all; the vocabularies must be equal, teachers are matched by name."""
    if not trees:
        raise ConfigError("no trees came to merge; at least one is needed")
    first = trees[0]
    for number, other in enumerate(trees[1:], start=2):
        if other.tokens != first.tokens or other.eos_id != first.eos_id:
            raise ConfigError(
                f"tree {number} has another vocabulary ({other.vocab_size} tokens, end {other.eos_id}) than the first "
                f"({first.vocab_size} tokens, end {first.eos_id}); only trees of one vocabulary can be merged"
            )
    teachers = list(dict.fromkeys(name for tree in trees for name in tree.teachers))
    header = {name: value for name, value in first.header.items() if name not in ("tokens", "eos_id", "teachers")}
    samplers: list[Any] = []
    for tree in trees:
        samplers += [sampler for sampler in tree.header.get("samplers", ()) if sampler not in samplers]
    merged = TokenTree.empty(
        tokens=first.tokens,
        eos_id=first.eos_id,
        teachers=teachers,
        context=any(tree.has("context") for tree in trees),
        header={**header, "samplers": samplers} if samplers else header,
        capacity=sum(tree.size for tree in trees),
    )
    for tree in trees:
        _append(merged, tree, np.arange(tree.size), list(tree.roots), tree.root_node)
    return merged


def _append(target: TokenTree, source: TokenTree, keep: np.ndarray, roots: list[Root], root_nodes: np.ndarray) -> None:
    """Copies the nodes `keep` (ascending, whole families) of one tree to the end of another."""
    start = target.size
    place = np.full(source.size, -1, np.int64)
    place[keep] = start + np.arange(len(keep))
    at = {int(place[node]): root for node, root in zip(root_nodes, roots, strict=True)}
    target._reserve(len(keep))  # the arena's own room-making: nodes are copied whole, links and all
    target._roots = [*target._roots, *(at[node] for node in sorted(at))]
    target._root_node = np.concatenate([target.root_node, np.array(sorted(at), np.int32)])
    new = slice(start, start + len(keep))
    for name in source.column_names:
        if name in COLUMNS and name not in _LINKS:
            target.column(name)[new] = source.column(name)[keep]
    for name in ("parent", "first_child"):
        links = source.column(name)[keep].astype(np.int64)
        target.column(name)[new] = np.where(links >= 0, place[links], -1)
    columns = [target.teachers.index(name) for name in source.teachers]
    target.teacher_logp[new, columns] = source.teacher_logp[keep]
    for name in ("sampled", "sampled_logp"):
        if source.has(name):
            places = [target.header["samplers"].index(sampler) for sampler in source.header["samplers"]]
            target.column(name)[new, places] = source.column(name)[keep]
    proposers = source.proposers[keep]
    moved = proposers & 1
    for old, column in enumerate(columns):
        moved |= (proposers >> (old + 1) & 1) << (column + 1)
    target.proposers[new] = moved


def _descendants(tree: TokenTree, nodes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the nodes and everything below them, ascending."""
    inside = np.zeros(tree.size, bool)
    frontier = np.asarray(nodes, np.int64)
    while len(frontier):
        inside[frontier] = True
        counts = tree.child_count[frontier].astype(np.int64)
        starts = np.repeat(tree.first_child[frontier], counts)
        frontier = starts + np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.flatnonzero(inside)


def _like(tree: TokenTree, capacity: int) -> TokenTree:
    return TokenTree.empty(
        tokens=tree.tokens, eos_id=tree.eos_id, teachers=tree.teachers, context=tree.has("context"),
        header={k: v for k, v in tree.header.items() if k not in ("tokens", "eos_id", "teachers")}, capacity=capacity,
    )  # fmt: skip


def select_roots(tree: TokenTree, roots: Sequence[int] | np.ndarray) -> TokenTree:
    """Returns a tree of some of the prompts, with everything below them."""
    chosen = np.unique(np.asarray(roots, np.int64))
    if len(chosen) and (chosen[0] < 0 or chosen[-1] >= tree.num_roots):
        bad = chosen[0] if chosen[0] < 0 else chosen[-1]
        raise ConfigError(f"root {bad} is out of range; the tree has roots 0 to {tree.num_roots - 1}")
    nodes = tree.root_node[chosen]
    keep = _descendants(tree, nodes)
    picked = _like(tree, len(keep))
    _append(picked, tree, keep, [tree.roots[int(root)] for root in chosen], nodes)
    return picked


def subtree(tree: TokenTree, node: int) -> TokenTree:
    """Returns the tree below one node; the text up to it joins the prompt."""
    if not 0 <= node < tree.size:
        raise ConfigError(f"node {node} is out of range; the tree has nodes 0 to {tree.size - 1}")
    if tree.flags[node] & END:
        raise ConfigError(f"node {node} is an end; there is nothing below it")
    old = tree.roots[int(tree.root_of([node])[0])]
    path = tuple(int(token) for token in tree.path(node))
    root = replace(old, prompt=old.prompt + tree.text(node), tokens=(*old.tokens, *path))
    keep = _descendants(tree, [node])
    cut = _like(tree, len(keep))
    _append(cut, tree, keep, [root], np.array([node]))
    cut.depth[:] -= tree.depth[node]
    for name in ("token", "prior", "sampled", "sampled_logp"):  # the cut's first node is a root now
        if cut.has(name):
            cut.column(name)[0] = COLUMNS[name].unset
    return cut


def statistics(tree: TokenTree) -> dict[str, Any]:
    """Returns what is in a tree: sizes, shape, shares of the teachers, correct leaves, reachable prompts."""
    expanded = tree.child_count > 0
    leaves = (tree.flags & END) != 0
    inner = tree.parent >= 0
    correct = leaves & (tree.verdict >= 0.5)
    shortest = solve(tree, np.zeros(tree.size)).shortest[tree.root_node]
    reachable = shortest >= 0
    proposed = tree.proposers[inner]
    shares = {
        name: float((proposed >> bit & 1).mean()) if len(proposed) else 0.0
        for bit, name in enumerate(["primary", *tree.teachers])
    }
    return {
        "roots": tree.num_roots,
        "splits": {split: len(tree.roots_in(split)) for split in ("train", "validation", "test")},
        "nodes": tree.size,
        "nodes_per_root": tree.size / max(tree.num_roots, 1),
        "closed": tree.is_closed,
        "leaves": int(leaves.sum()),
        "correct_leaves": int(correct.sum()),
        "reachable_roots": float(reachable.mean()) if len(reachable) else 0.0,
        "max_depth": int(tree.depth.max(initial=0)),
        "mean_leaf_depth": float(tree.depth[leaves].mean()) if leaves.any() else 0.0,
        "branching": float(tree.child_count[expanded].mean()) if expanded.any() else 0.0,
        "max_children": int(tree.child_count.max(initial=0)),
        "mean_correct_length": float(tree.depth[correct].mean()) if correct.any() else 0.0,
        "mean_shortest_correct_length": float(shortest[reachable].mean()) if reachable.any() else 0.0,
        "proposed_by": shares,
    }
