"""Laying sprouts out in the arena: all nodes of a prompt below it, level by level, written column by column at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from treegym.envs.token_tree.grow.closing import PRIMARY
from treegym.envs.token_tree.grow.columns import ending_tokens, vocabulary
from treegym.envs.token_tree.grow.settings import Voice
from treegym.envs.token_tree.grow.sprout import ROOT, Sprout
from treegym.errors import ConfigError
from treegym.tree.columns import unset_column
from treegym.tree.flags import EOS, EXPANDED, GREEDY
from treegym.tree.token_tree import CHILD_LIMIT, DEPTH_LIMIT, NODE_LIMIT, Root, TokenTree

__all__ = ["lay_out"]


def lay_out(
    sprouts: Sequence[Sprout], roots: Sequence[Root], voices: Sequence[Voice], *, context: bool = True
) -> TokenTree:
    """Returns a tree with the sprouts' nodes, level by level below each root; only structure and provenance filled."""
    primary = voices[PRIMARY].model
    bare = TokenTree.empty(
        tokens=vocabulary(primary),
        eos_id=primary.tokenizer.eos_id,
        teachers=[voice.name for voice in voices[1:]],
        context=context,
        capacity=0,
    )
    size = sum(sprout.size + 1 for sprout in sprouts)
    if size > NODE_LIMIT:
        raise ConfigError(f"{size:,} nodes are too many for one tree, which holds {NODE_LIMIT:,}; use smaller shards")
    columns = {name: unset_column(name, size, bare.num_teachers) for name in bare.column_names}
    root_node = np.cumsum([0, *(sprout.size + 1 for sprout in sprouts)])[:-1]
    for sprout, root in zip(sprouts, root_node.tolist(), strict=True):
        _put(columns, sprout, root)
    below = columns["parent"] >= 0
    columns["flags"][below] |= ending_tokens(primary)[columns["token"][below]]
    prompts = [replace(root, tokens=voices[PRIMARY].begin(root.prompt)) for root in roots]
    return TokenTree(
        columns, header=bare.header, root_node=root_node.astype(np.int32), roots=prompts, size=size
    )  # fmt: skip


def _put(columns: dict[str, np.ndarray], sprout: Sprout, root: int) -> None:
    """Writes one sprout's nodes right behind its root."""
    order = sprout.level_order()
    tokens, parents = sprout.arrays()
    place = np.empty(sprout.size + 1, np.int64)  # where each node of the sprout stands; its last entry is the prompt
    place[order], place[ROOT] = root + 1 + np.arange(sprout.size), root
    above = place[parents[order]]
    nodes = slice(root + 1, root + 1 + sprout.size)
    columns["token"][nodes] = tokens[order]
    columns["parent"][nodes] = above
    depths = np.array(sprout.depths, np.int64)[order]
    columns["depth"][nodes] = depths
    columns["proposers"][nodes] = np.array(sprout.proposers, np.int64)[order]
    greedy = np.array(sprout.greedy, bool)[order]
    columns["flags"][nodes] = np.where(tokens[order] == sprout.eos_id, EOS, 0) | np.where(greedy, GREEDY, 0)
    expanded, first, counts = np.unique(above, return_index=True, return_counts=True)
    if counts.max(initial=0) > CHILD_LIMIT or depths.max(initial=0) > DEPTH_LIMIT:
        raise ConfigError(
            f"a prompt has a node with {counts.max()} children and {depths.max()} tokens on a path; a tree holds "
            f"{CHILD_LIMIT} and {DEPTH_LIMIT} at most"
        )
    columns["first_child"][expanded] = root + 1 + first
    columns["child_count"][expanded] = counts
    columns["flags"][expanded] |= EXPANDED
