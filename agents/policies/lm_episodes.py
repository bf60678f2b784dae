"""The contexts of whole episodes, and what of them is read together. Letters: N steps, E episodes, L context length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch

from treegym.agents.fast.packing import Packed

__all__ = ["Episodes"]

PACKED_TOKENS = 2048  # read at a time: what a layer makes of so many stays in the processor's cache


class Episodes:
    """The contexts of whole episodes, step after step, each the beginning of the next."""

    def __init__(self, context: torch.Tensor, lengths: np.ndarray) -> None:
        self.context = context  # [N, L]
        self.ends = np.cumsum(lengths) - 1  # [E] the last step of each
        self.number = np.repeat(np.arange(len(lengths)), lengths)  # [N] each step's episode
        self.at = (context >= 0).sum(1).cpu().numpy() - 1  # [N] where each step's context ends
        self._starts = np.cumsum(lengths) - lengths

    @property
    def width(self) -> int:
        return self.context.shape[1]

    def packed(self) -> Iterator[tuple[Packed, np.ndarray]]:
        """Yields tokens without padding, and where among them each step's context ends, some episodes at a time."""
        first, last = self.at[self._starts] + 1, self.at[self.ends] + 1
        part = (np.cumsum(last) - last) // PACKED_TOKENS  # [E] of each episode
        cuts = [*np.flatnonzero(np.diff(part, prepend=-1)).tolist(), len(part)]
        for begin, end in pairwise(cuts):
            contexts = self.context[torch.from_numpy(self.ends[begin:end])].numpy()
            packed, where = Packed.of_episodes(contexts, first[begin:end], last[begin:end])
            steps = slice(int(self._starts[begin]), int(self.ends[end - 1]) + 1)
            yield packed, where[self.number[steps] - begin, self.at[steps]]
