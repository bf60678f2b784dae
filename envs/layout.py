"""How a flat observation is laid out: state features first, then one row of features for each child."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ObservationLayout"]


@dataclass(frozen=True)
class ObservationLayout:
    """Names every column of ``obs["observations"]``; environments expose it as ``env.unwrapped.layout``.

    An observation is ``[state_0 .. state_S-1, child_0 feature_0 .. child_0 feature_F-1, child_1 feature_0 ..]``.
    """

    num_children: int  # K, the size of the action space
    state: tuple[str, ...]  # names of the S state features
    child: tuple[str, ...]  # names of the F features that every child has

    @property
    def size(self) -> int:
        return len(self.state) + self.num_children * len(self.child)

    def split(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns views of ``[..., size]`` observations: state ``[..., S]`` and children ``[..., K, F]``."""
        cut = len(self.state)
        children = observations[..., cut:]
        return observations[..., :cut], children.reshape(*children.shape[:-1], self.num_children, len(self.child))

    def child_column(self, name: str) -> int:
        """Returns the position of a child feature; raises ValueError for an unknown name."""
        return self.child.index(name)
