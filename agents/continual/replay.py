"""Replay: a reservoir of earlier examples, some of which join every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from treegym.agents.continual.base import Method, Problem

__all__ = ["Replay"]


class Replay(Method):
    """Batches are sequences of examples.

    Args:
        model: the network.
        capacity: examples kept over all tasks; each example seen is equally likely to be among them.
        share: old examples for each new one.
        seed: of the choices.
    """

    def __init__(self, model: nn.Module, *, capacity: int = 1000, share: float = 0.5, seed: int = 0) -> None:
        super().__init__(model)
        self.capacity, self.share = capacity, share
        self._rng = np.random.default_rng(seed)
        self._kept: list[Any] = []
        self._seen = 0
        self._this_task: list[Any] = []

    def batch(self, batch: Sequence[Any]) -> list[Any]:
        self._this_task += batch
        if not self._kept:
            return list(batch)
        chosen = self._rng.integers(len(self._kept), size=round(len(batch) * self.share))
        return [*batch, *(self._kept[index] for index in chosen)]

    def end(self, problem: Problem, batches: Sequence[Any]) -> bool:
        for example in self._this_task:
            self._seen += 1
            if len(self._kept) < self.capacity:
                self._kept.append(example)
            elif (place := int(self._rng.integers(self._seen))) < self.capacity:
                self._kept[place] = example
        self._this_task = []
        return False
