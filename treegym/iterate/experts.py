"""Episodes on a closed tree: of the expert, which searches with the primary as prior, and of the primary alone.

On training prompts the verifier may be in the loop (it is what the reward is made of); what search finds is imitated,
and on held-out prompts the model answers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from treegym.iterate.imitate import Example
from treegym.search.closed import search_closed
from treegym.tree.values import child_probabilities

__all__ = ["Played", "play_by_prior", "play_by_search"]


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


def play_by_search(world: Any, roots: np.ndarray, *, simulations: int, seed: int, first: int = 0) -> Played:
    """Returns one episode for each root, every move chosen by search with the tree's prior.

    Args:
        world: a `TreeWorld` over a closed tree.
        roots: where episodes begin.
        simulations: of each search.
        seed: of the searches.
        first: how many episodes come before these, where they are a share of more: each is the same as in the whole.
    """
    cells = world.tables.cells
    zeros = np.zeros(world.tree.size, np.float32)
    prior = np.ascontiguousarray(world.tree.prior, np.float32)

    def searched(here: np.ndarray, lanes: np.ndarray, move: int) -> np.ndarray:
        actions = np.zeros(len(lanes), np.int64)
        choice = cells["count"][here] > 1
        if choice.any():
            found = search_closed(
                first_child=cells["first"], child_count=cells["count"], terminal=np.asarray(world.tables.ends),
                reward=cells["pays"].astype(np.float32), prior_logits=prior, value=zeros, roots=here[choice],
                root_ids=first + lanes[choice], num_simulations=simulations, method="gumbel", seed=seed + move,
            )  # fmt: skip
            actions[choice] = found.action
        return actions

    return _play(world, roots, searched)


def play_by_prior(world: Any, roots: np.ndarray, *, seed: int) -> Played:
    """Returns one episode for each root (which may come several times), every move drawn by the primary."""
    cells = world.tables.cells
    above = np.cumsum(child_probabilities(world.tree, "primary"))  # siblings stand side by side, so this sums them up
    rng = np.random.default_rng(seed)

    def drawn(here: np.ndarray, lanes: np.ndarray, move: int) -> np.ndarray:
        first = cells["first"][here].astype(np.int64)
        last = first + cells["count"][here] - 1
        target = above[first - 1] + rng.random(len(here)) * (above[last] - above[first - 1])
        chosen = np.searchsorted(above, target, side="right")
        return np.asarray(np.clip(chosen, first, last) - first, np.int64)

    return _play(world, roots, drawn)


def _play(world: Any, roots: np.ndarray, choose: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> Played:
    """Plays one episode for each root; `choose` gets nodes, lanes and the move, and returns actions."""
    tree, cells = world.tree, world.tables.cells
    ends = np.asarray(world.tables.ends)
    node = tree.root_node[roots].astype(np.int64)
    paths: list[list[int]] = [[] for _ in roots]
    total = np.zeros(len(roots))
    going = np.arange(len(roots))
    for move in range(world.max_tokens):
        here = node[going]
        node[going] = cells["first"][here] + choose(here, going, move)
        for lane, there in zip(going, node[going], strict=True):
            paths[lane].append(int(there))
        total[going] += cells["pays"][node[going]]
        going = going[~ends[node[going]] & (cells["count"][node[going]] > 0)]
        if not len(going):
            break
    played = Played()
    for place, start in enumerate(roots.tolist()):
        played.add(start, paths[place], float(total[place]), bool(world.right[node[place]]))
    return played
