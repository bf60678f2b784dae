"""The contexts of whole episodes, and what of them is read together. Letters: N steps, E episodes, L context length,
D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch

from treegym.agents.fast.packing import Packed

__all__ = ["Episodes", "by_length"]

PARTS, SMALLEST_PART = 4, 16  # a batch is read in so many parts, none smaller than this
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


def by_length(
    hidden: Callable[[torch.Tensor], torch.Tensor], contexts: torch.Tensor, episode: torch.Tensor, at: torch.Tensor
) -> torch.Tensor:
    """Returns the states ``[N, D]`` at places ``[N]`` of the contexts ``[E, L]`` numbered ``[N]``.

    Contexts of like length go through the layers together, so that little is spent on padding.
    """
    count = len(contexts)
    size = max(SMALLEST_PART, -(-count // PARTS))
    if count <= size:
        return hidden(contexts)[episode, at]
    order = torch.argsort((contexts >= 0).sum(1), stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(count, device=order.device)
    place = rank[episode]  # [N] of each step's context in the order of lengths
    steps, found = [], []
    for first in range(0, count, size):
        which = torch.nonzero((place >= first) & (place < first + size)).squeeze(1)
        steps.append(which)
        found.append(hidden(contexts[order[first : first + size]])[place[which] - first, at[which]])
    return torch.cat(found)[torch.argsort(torch.cat(steps))]
