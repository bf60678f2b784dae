"""An agent's walks: what it chose at every step, and how likely it thought each child."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treegym.explorer.view import Walk

__all__ = ["walks_of"]


def walks_of(agent: Any, name: str, world: Any, roots: Iterable[int]) -> list[Walk]:
    """Returns the greedy walk of an agent from each root.

    Args:
        agent: anything with SB3's ``predict``; with our policies' ``infer``, probabilities come along.
        name: what the page calls the agent.
        world: the `TreeWorld` that is explored; the walk follows its rules.
        roots: where to start.
    """
    return [_walk(agent, name, world, int(root)) for root in roots]


def _walk(agent: Any, name: str, world: Any, root: int) -> Walk:
    node = np.array([world.tree.root_node[root]], np.int64)
    nodes, probabilities = [int(node[0])], []
    for step in range(world.max_tokens):
        if world.tables.ends[node[0]] or world.tables.child_count[node[0]] == 0:
            break
        seen = world.observe(node, np.array([step], np.int32))
        probabilities.append(_probabilities(agent, world, int(node[0]), seen))
        action, _ = agent.predict(seen, deterministic=True)
        node = world.next_nodes(node, np.asarray(action).reshape(1), np.zeros(1, bool))
        if int(node[0]) == nodes[-1]:
            break  # an illegal choice leaves it standing
        nodes.append(int(node[0]))
    return Walk(name, root, nodes, probabilities)


def _probabilities(agent: Any, world: Any, node: int, seen: dict[str, np.ndarray]) -> dict[int, float]:
    infer = getattr(getattr(agent, "policy", None), "infer", None)
    if infer is None:
        return {}
    count, first = int(world.tables.child_count[node]), int(world.tables.first_child[node])
    logits = infer(seen, with_value=False)[0][0][:count].astype(np.float64)
    weights = np.exp(logits - logits.max())
    return {first + k: float(p) for k, p in enumerate(weights / weights.sum())}
