"""What gradient steps see: a weighed rollout, and how it is cut into batches. Letters: N steps (tokens), E episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

__all__ = ["FIGURES", "NOTHING", "Lesson", "Whole", "episode_batches"]

FIGURES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")  # logged of every update batch

NOTHING = np.empty(0, np.int64), np.empty(0, np.int64)  # a batch of no steps and no episodes


class Lesson(NamedTuple):
    """A rollout, weighed: what the gradient steps see. All but `lengths` are per step."""

    rows: dict[str, np.ndarray]  # each [N, ...]
    actions: np.ndarray  # [N] int64
    old_log_probs: np.ndarray  # [N] float32
    advantages: np.ndarray  # [N] float32
    targets: np.ndarray  # [N] float32, of the critic; zeros where there is none
    old_values: np.ndarray  # [N] float32
    reference: np.ndarray  # [N] float32, log-probabilities of the reference policy; zeros where there is none
    correct: np.ndarray  # [N] bool, whether the step's episode is correct
    length: np.ndarray  # [N] float32, steps of the step's episode
    lengths: np.ndarray  # [E] int64

    def part(self, index: np.ndarray) -> Lesson:
        """Returns the steps of `index`."""
        rows = {key: array[index] for key, array in self.rows.items()}
        return Lesson(
            rows, self.actions[index], self.old_log_probs[index], self.advantages[index], self.targets[index],
            self.old_values[index], self.reference[index], self.correct[index], self.length[index], self.lengths,
        )  # fmt: skip

    def map(self, made: Callable[[np.ndarray], Any]) -> Lesson:
        """Returns what is `made` of every array but the rows and `lengths`."""
        columns = {name: made(getattr(self, name)) for name in self._fields[1:-1]}
        return self._replace(**columns)


class Whole(NamedTuple):
    """What normalises the loss of an update batch, and the schedules' values."""

    tokens: int
    episodes: float  # by share of tokens, where a batch holds parts of episodes
    correct_tokens: int
    clip_low: float
    clip_high: float
    ent_coef: float
    nll_coef: float


def episode_batches(
    lengths: np.ndarray, size: int, rng: np.random.Generator | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields step indices of whole episodes, about `size` steps at a time, and their lengths."""
    starts = np.cumsum(lengths) - lengths
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    chosen: list[int] = []
    steps = 0
    for position, episode in enumerate(order.tolist()):
        chosen.append(episode)
        steps += int(lengths[episode])
        if steps >= size or position == len(order) - 1:
            yield np.concatenate([np.arange(starts[e], starts[e] + lengths[e]) for e in chosen]), lengths[chosen]
            chosen, steps = [], 0
