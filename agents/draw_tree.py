"""What was drawn below one or several prompts, as a tree of segments: what tree advantages are made of.

A node is a segment that was drawn: a token, a sentence, or a whole text. Draws may share a node (chains merged where
they say the same) or each have their own. Letters: D nodes, L texts, E episodes, N steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treegym.errors import ConfigError

__all__ = ["DrawTree", "episode_tree", "forest"]


@dataclass(frozen=True)
class DrawTree:
    """Segments in flat arrays, parents before children; a prompt is a node without a parent."""

    parent: np.ndarray  # [D] int64, -1 at prompts
    times: np.ndarray  # [D] how often the segment was drawn after its parent
    ends: np.ndarray  # [D] how many texts end with it
    score: np.ndarray  # [D] float64, the mean return of the texts that end here; 0 where none does
    forced: np.ndarray  # [D] bool, a fork was put at its parent because of it, so it is not a fresh draw there
    sure: np.ndarray  # [D] float64, the policy's probability of its first token when it was drawn; NaN: unknown

    def __post_init__(self) -> None:
        if (self.parent >= np.arange(len(self.parent))).any():
            raise ConfigError("a segment comes before the one it follows; parents must come first")

    @property
    def size(self) -> int:
        return len(self.parent)

    def up(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum of values over each node and all below it ``[D] float64``."""
        total = np.array(values, np.float64)
        for node in range(self.size - 1, -1, -1):
            if self.parent[node] >= 0:
                total[self.parent[node]] += total[node]
        return total

    @property
    def texts(self) -> np.ndarray:
        """How many texts come through each node ``[D] float64``."""
        return self.up(self.ends)

    @property
    def root(self) -> np.ndarray:
        """The prompt of each node ``[D] int64``."""
        top = np.arange(self.size)
        for node in range(self.size):
            if self.parent[node] >= 0:
                top[node] = top[self.parent[node]]
        return top

    @property
    def depth(self) -> np.ndarray:
        """Segments below the prompt ``[D] int64``."""
        deep = np.zeros(self.size, np.int64)
        for node in range(self.size):
            if self.parent[node] >= 0:
                deep[node] = deep[self.parent[node]] + 1
        return deep

    def leaf_mean(self, *, fresh: bool = False) -> np.ndarray:
        """Returns the mean return of the texts through each node ``[D] float64``.

        Args:
            fresh: leave out, at each node that has other draws, what came through a forced child: unbiased at forks.
        """
        count, total = self.ends.astype(np.float64), self.ends * self.score
        kept, sums = count.copy(), total.copy()  # without forced children
        for node in range(self.size - 1, -1, -1):
            above = self.parent[node]
            if above >= 0:
                count[above] += count[node]
                total[above] += total[node]
                if not self.forced[node]:
                    kept[above] += count[node]
                    sums[above] += total[node]
        every = total / np.maximum(count, 1)
        return np.where(kept > 0, sums / np.maximum(kept, 1), every) if fresh else every

    def child_mean(self) -> np.ndarray:
        """Returns the mean of the values of a node's draws, a text's being its return ``[D] float64``.

        Each draw counts once, however many texts went on from it: the mean stays unbiased where that number depends on
        what was drawn.
        """
        count = self.ends.astype(np.float64)
        total = self.ends * self.score
        value = np.zeros(self.size)
        for node in range(self.size - 1, -1, -1):
            value[node] = total[node] / count[node] if count[node] else 0.0
            above = self.parent[node]
            if above >= 0:
                count[above] += self.times[node]
                total[above] += self.times[node] * value[node]
        return value

    def above(self, values: np.ndarray) -> np.ndarray:
        """Returns the values at each node's parent ``[D]``; a prompt's own at prompts."""
        return values[np.where(self.parent >= 0, self.parent, np.arange(self.size))]


def forest(
    parent: list[int], rewards: dict[int, float], *, forced: tuple[int, ...] = (), sure: object = None
) -> DrawTree:
    """Returns a tree whose segments were drawn once each, with the returns of the texts that end."""
    size = len(parent)
    ends, score = np.zeros(size, np.int64), np.zeros(size)
    for node, reward in rewards.items():
        ends[node], score[node] = 1, reward
    pushed = np.zeros(size, np.bool_)
    pushed[list(forced)] = True
    chance = np.full(size, np.nan) if sure is None else np.asarray(sure, np.float64)
    return DrawTree(np.array(parent, np.int64), np.ones(size, np.int64), ends, score, pushed, chance)


def episode_tree(
    actions: np.ndarray,
    lengths: np.ndarray,
    groups: np.ndarray,
    returns: np.ndarray,
    log_probs: np.ndarray | None = None,
) -> tuple[DrawTree, np.ndarray]:
    """Returns episodes of groups merged where they did the same, and the node of every step ``[N] int64``.

    Args:
        actions: ``[N] int`` of all steps, one episode after the other.
        lengths: ``[E]`` steps of each.
        groups: ``[E]`` the group of each; episodes of a group start alike.
        returns: ``[E] float``.
        log_probs: ``[N] float``, of the actions when they were taken.
    """
    found: dict[tuple[int, int], int] = {}
    parent: list[int] = []
    sure: list[float] = []
    node_of = np.empty(len(actions), np.int64)
    times: list[int] = []
    ends: list[int] = []
    sums: list[float] = []

    def reached(above: int, key: int, chance: float) -> int:
        node = found.get((above, key))
        if node is None:
            node = found[above, key] = len(parent)
            parent.append(above if above >= 0 else -1)
            sure.append(chance)
            times.append(0)
            ends.append(0)
            sums.append(0.0)
        times[node] += 1
        return node

    step = 0
    for length, group, reward in zip(lengths.tolist(), groups.tolist(), returns.tolist(), strict=True):
        here = reached(-1, group, 1.0)
        for _ in range(length):
            chance = float("nan") if log_probs is None else float(np.exp(log_probs[step]))
            here = reached(here, int(actions[step]), chance)
            node_of[step] = here
            step += 1
        ends[here] += 1
        sums[here] += reward
    counts, totals = np.array(ends, np.int64), np.array(sums, np.float64)
    score = totals / np.maximum(counts, 1)
    pushed = np.zeros(len(parent), np.bool_)
    return DrawTree(np.array(parent, np.int64), np.array(times), counts, score, pushed, np.array(sure)), node_of
