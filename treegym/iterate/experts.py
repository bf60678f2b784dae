"""The expert of expert iteration: search over a closed tree with the primary as prior, on training prompts.

On training prompts the verifier may be in the loop (it is what the reward is made of); what search finds is imitated,
and on held-out prompts the model answers alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.iterate.imitate import Example
from treegym.search.closed import search_closed

__all__ = ["Played", "play_by_search"]


class Played:
    """Episodes: where they started, which nodes they visited, what they returned."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.paths: list[list[int]] = []
        self.returns: list[float] = []
        self.correct: list[bool] = []

    def add(self, root: int, path: list[int], total: float, correct: bool) -> None:
        self.roots.append(root)
        self.paths.append(path)
        self.returns.append(total)
        self.correct.append(correct)

    def examples(self, tree: Any) -> list[Example]:
        """Returns the correct episodes as prompt and answer tokens."""
        return [
            (tree.roots[root].tokens, tree.token[path].tolist())
            for root, path, correct in zip(self.roots, self.paths, self.correct, strict=True)
            if correct
        ]


def play_by_search(world: Any, roots: np.ndarray, *, simulations: int, seed: int) -> Played:
    """Returns one episode for each root, every move chosen by search with the tree's prior."""
    tree = world.tree
    cells = world.tables.cells
    node = tree.root_node[roots].astype(np.int64)
    paths: list[list[int]] = [[] for _ in roots]
    total = np.zeros(len(roots))
    going = np.arange(len(roots))
    zeros = np.zeros(tree.size, np.float32)
    prior = np.ascontiguousarray(tree.prior, np.float32)
    for move in range(world.max_tokens):
        here = node[going]
        forced = cells["count"][here] == 1
        actions = np.zeros(len(going), np.int64)
        if (~forced).any():
            found = search_closed(
                first_child=cells["first"], child_count=cells["count"], terminal=np.asarray(world.tables.ends),
                reward=cells["pays"].astype(np.float32), prior_logits=prior, value=zeros, roots=here[~forced],
                root_ids=going[~forced], num_simulations=simulations, method="gumbel", seed=seed + move,
            )  # fmt: skip
            actions[~forced] = found.action
        node[going] = cells["first"][here] + actions
        for lane, there in zip(going, node[going], strict=True):
            paths[lane].append(int(there))
        total[going] += cells["pays"][node[going]]
        going = going[~np.asarray(world.tables.ends)[node[going]] & (cells["count"][node[going]] > 0)]
        if not len(going):
            break
    played = Played()
    for place, start in enumerate(roots.tolist()):
        played.add(start, paths[place], float(total[place]), bool(world.right[node[place]]))
    return played
