"""What the tree says of episodes: nobody need be believed where an episode's last node can be looked up.

Letters: E episodes, N nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.bench.episodes import Episodes, TrainingEpisodes

__all__ = ["contradictions", "path_sums"]


def path_sums(tree: Any, pays: np.ndarray) -> np.ndarray:
    """Returns what the path from a root to each node pays in all ``[N] float64``."""
    parent, depth = np.asarray(tree.parent), np.asarray(tree.depth)
    earned = np.where(depth > 0, pays, 0.0).astype(np.float64)
    for level in range(2, int(depth.max(initial=0)) + 1):
        here = np.flatnonzero(depth == level)
        earned[here] += earned[parent[here]]
    return earned


def contradictions(world: Any, episodes: Episodes, best: np.ndarray) -> list[str]:
    """Returns the columns in which episodes contradict the tree at the nodes they ended in.

    Args:
        world: the world they were played in, with its reward and terminal rule.
        episodes: those of evaluation or of training.
        best: the best return from every node ``[N] float64``.
    """
    tree, end = world.tree, episodes.end
    root_node = np.asarray(tree.root_node)
    start = episodes.start if isinstance(episodes, TrainingEpisodes) else root_node[episodes.prompt]
    for name, nodes in (("end", end), ("start", start)):
        if len(nodes) and (nodes.min() < 0 or nodes.max() >= tree.size):
            return [name]
    everywhere = np.arange(tree.size)
    world.table.ensure(everywhere)
    earned = path_sums(tree, np.asarray(world.table.total, np.float64)[: tree.size])
    depth = np.asarray(tree.depth, np.int64)
    verdict = np.asarray(tree.verdict)[end].astype(np.float64)
    true = np.where(np.isnan(verdict), world.correct(end).astype(np.float64), verdict)
    moves = depth[end] - depth[start]
    # An illegal action costs a step and a penalty that leave no trace in the tree, so those bounds are one-sided, and
    # the budget of steps may run out on the way.
    ended = world.tables.ends[end] | world.tables.cut_off[end] | (episodes.length > moves)
    checks = {
        "start": tree.root_of(start) == episodes.prompt,
        "end": (tree.root_of(end) == episodes.prompt) & ended,
        "correct": episodes.correct == world.correct(end),
        "true": np.isclose(episodes.true, true),
        "length": episodes.length >= moves,
        "return": episodes.ret <= earned[end] - earned[start] + 1e-5,
        "regret": np.isclose(episodes.regret, np.maximum(best[start] - episodes.ret, 0.0), atol=1e-5),
    }
    return [name for name, holds in checks.items() if not holds.all()]
