"""The spaces of a world, the same for the single and the vector environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from gymnasium import spaces

__all__ = ["Spaces"]


class Spaces:
    """What a world's environments show and take, from what the world says of itself."""

    low: np.ndarray  # [D] float32, bounds of an observation
    high: np.ndarray  # [D] float32
    num_actions: int  # K
    terms: ClassVar[Sequence[str]]  # of the vector reward, in order

    @property
    def views(self) -> Mapping[str, spaces.Space]:
        """What is shown besides the features."""
        return {}

    @property
    def observation_space(self) -> spaces.Dict:
        """The one-level Dict space of observations."""
        flat = spaces.Box(self.low, self.high, dtype=np.float32)
        mask = spaces.Box(0, 1, (self.num_actions,), np.int8)
        return spaces.Dict({"observations": flat, "action_mask": mask, **self.views})

    @property
    def action_space(self) -> spaces.Discrete:
        """One action per choice that a place may offer."""
        return spaces.Discrete(self.num_actions)

    @property
    def reward_space(self) -> spaces.Box:
        """The vector of objectives."""
        return spaces.Box(-np.inf, np.inf, (len(self.terms),), np.float32)
