"""Small environments and helpers for the tests of agents."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from treegym.envs.layout import ObservationLayout

TREE = "synthetic:roots=40,depth=5,branching=3,width=4,seed=0"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tree_spec() -> str:
    """A synthetic tree that is walked in a few steps."""
    return TREE


@pytest.fixture
def tree_env() -> gym.Env:
    return gym.make("TokenTree-v0", tree=TREE)


class Identity(gym.Env):
    """Four children, some of them illegal; the right one is marked in its features. Two steps an episode.

    Args:
        solvable: without it no child is marked and every episode fails, whatever is chosen.
        rooted: whether episodes can be started at a root.
    """

    layout = ObservationLayout(4, ("step",), ("prior", "mark"))
    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (as the base declares it)

    def __init__(self, solvable: bool = True, rooted: bool = True) -> None:
        self.solvable = solvable
        if rooted:
            self.roots = np.arange(8)
        self.observation_space = spaces.Dict(
            {
                "observations": spaces.Box(-1.0, 1.0, (self.layout.size,), np.float32),
                "action_mask": spaces.Box(0, 1, (4,), np.int8),
            }
        )
        self.action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.good = 0, True
        self.root = int((options or {}).get("root", self.np_random.integers(8)))
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.good &= self.solvable and int(action) == self.right
        self.time += 1
        over = self.time == 2
        reward = float(over and self.good)
        return self._see(), reward, over, False, {"is_success": bool(over and self.good)}

    def _see(self) -> dict[str, np.ndarray]:
        self.right = (self.root + self.time) % 4
        rows = np.zeros(self.layout.size, np.float32)
        rows[0] = self.time / 2
        if self.solvable:
            rows[1 + 2 * self.right + 1] = 1.0
        mask = np.ones(4, np.int8)
        mask[(self.right + 1) % 4] = 0
        return {"observations": rows, "action_mask": mask}


@pytest.fixture
def identity() -> type[Identity]:
    return Identity
