"""The spaces of TokenTree, the same for the single and the vector environment."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from treegym.envs.token_tree.world import TreeWorld

__all__ = ["action_space", "observation_space", "reward_space"]


def observation_space(world: TreeWorld) -> spaces.Dict:
    """Returns the one-level Dict space of observations, with token ids in the tokens view."""
    parts: dict[str, spaces.Space] = {
        "observations": spaces.Box(world.low, world.high, dtype=np.float32),
        "action_mask": spaces.Box(0, 1, (world.num_actions,), np.int8),
    }
    if world.windows is not None:
        largest = world.tree.vocab_size - 1
        parts["context"] = spaces.Box(-1, largest, (world.windows.length,), np.int32)
        parts["children"] = spaces.Box(-1, largest, (world.num_actions,), np.int32)
    return spaces.Dict(parts)


def action_space(world: TreeWorld) -> spaces.Discrete:
    """Returns one action for each child a node may have."""
    return spaces.Discrete(world.num_actions)


def reward_space(world: TreeWorld) -> spaces.Box:
    """Returns the space of the vector of objectives, in the order of the reward's terms."""
    return spaces.Box(-np.inf, np.inf, (len(world.table.names),), np.float32)
