"""Hand-written controllers of test-time compute: when to open another chain, go on, ask, drop one, and answer.

Best-of-N and weighted majority are self-consistency in an environment whose `aggregate` is "best" or "weighted".
Letters: B rows, M branches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from treegym.agents.baselines.base import Baseline
from treegym.checks import number, whole
from treegym.errors import ConfigError

__all__ = ["AdaptiveConsistency", "EarlyStoppingConsistency", "ParallelProbe", "ScoreThreshold", "SelfConsistency"]

BRANCH, ANSWER = 0, 1
_NEEDED = ("branch", "answer", "continue", "probe", "prune", "fork")


class Seen(NamedTuple):
    """What a controller reads of its branches."""

    legal: np.ndarray  # [B, K] bool
    active: np.ndarray  # [B, M] bool
    finished: np.ndarray  # [B, M] bool
    label: np.ndarray  # [B, M] int64, the branch's answer by first sight from 1; 0: none
    fresh: np.ndarray  # [B, M] bool, probed where it is
    score: np.ndarray  # [B, M] of finished chains
    opened: np.ndarray  # [B] int64
    confidence: np.ndarray  # [B] that the first answer leads


class Controller(Baseline):
    """Reads the features of `TestTimeCompute-v0`."""

    def _enter_world(self) -> None:
        names = self.layout().child
        if not set(_NEEDED) <= set(names):
            raise ConfigError(f"{type(self).__name__} controls test-time compute; make it in TestTimeCompute-v0")
        self.branches = (self.layout().num_children - 2) // 4

    def look(self, rows: dict[str, np.ndarray]) -> Seen:
        """Returns what the rows show, the branches side by side."""
        branches = self.columns(rows, ["active", "finished", "label", "fresh", "score"])[:, 2 : 2 + self.branches]
        state, _ = self.layout().split(rows["observations"])
        names = self.layout().state
        return Seen(
            self.mask(rows),
            branches[..., 0] > 0,
            branches[..., 1] > 0,
            np.rint(branches[..., 2] * self.branches).astype(np.int64),
            branches[..., 3] > 0,
            branches[..., 4],
            np.rint(state[:, names.index("opened")] * self.branches).astype(np.int64),
            state[:, names.index("confidence")],
        )

    def on(self, kind: int, branch: Any) -> Any:
        """Returns the actions of a kind (0 go on, 1 probe, 2 prune, 3 fork) on branches, one or ``[B] int64``."""
        return 2 + kind * self.branches + branch

    def checked(self, action: np.ndarray, seen: Seen) -> np.ndarray:
        """Returns the actions, with an answer where the budget or the pool does not allow them."""
        return np.where(seen.legal[np.arange(len(action)), action], action, ANSWER)


class SelfConsistency(Controller):
    """Samples N whole chains, then answers (https://arxiv.org/abs/2203.11171).

    Args:
        env: the environment.
        samples: N; None: as many as there is room for.
    """

    def __init__(self, env: Any, *, samples: int | None = None, seed: int | None = None, **kwargs: Any) -> None:
        self.samples = None if samples is None else whole("samples", samples, low=1)
        super().__init__(env, seed=seed, **kwargs)

    def choose(self, rows: dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        seen = self.look(rows)
        working = seen.active.any(1)
        enough = self.enough(seen)
        action = np.where(enough, ANSWER, BRANCH)
        return self.checked(np.where(working, self.on(0, seen.active.argmax(1)), action), seen)

    def enough(self, seen: Seen) -> np.ndarray:
        """Returns where to stop, once a chain is finished ``[B] bool``."""
        return seen.opened >= (self.samples or self.branches)


class AdaptiveConsistency(SelfConsistency):
    """Stops as soon as the first answer leads with confidence above a threshold (https://arxiv.org/abs/2305.11860)."""

    def __init__(
        self, env: Any, *, threshold: float = 0.95, samples: int | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        self.threshold = number("threshold", threshold, low=0, high=1)
        super().__init__(env, samples=samples, seed=seed, **kwargs)

    def enough(self, seen: Seen) -> np.ndarray:
        sure = (seen.confidence > self.threshold) & (seen.opened >= 2)
        return super().enough(seen) | sure


class EarlyStoppingConsistency(SelfConsistency):
    """Stops when a window of chains agrees (https://arxiv.org/abs/2401.10480).

    There the window's answer is given; here the environment answers by all chains, which differs where a later window
    agrees on what is not the plurality.
    """

    def __init__(
        self, env: Any, *, window: int = 4, samples: int | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        self.window = whole("window", window, low=1)
        super().__init__(env, samples=samples, seed=seed, **kwargs)

    def enough(self, seen: Seen) -> np.ndarray:
        full = (seen.opened > 0) & (seen.opened % self.window == 0)
        number_of = np.arange(self.branches)[None]
        latest = (number_of >= seen.opened[:, None] - self.window) & (number_of < seen.opened[:, None])
        first = seen.label[np.arange(len(seen.opened)), np.maximum(seen.opened - 1, 0)]
        agree = ((seen.label == first[:, None]) | ~latest).all(1) & (first > 0)
        return super().enough(seen) | (full & agree)


class ScoreThreshold(SelfConsistency):
    """Samples chains until one has a score of at least a threshold, as best-of-N that may stop early.

    Args:
        env: the environment; `aggregate` "best" or "weighted" suits it.
        threshold: the judge's score that is good enough.
        samples: most chains; None: as many as there is room for.
    """

    def __init__(
        self, env: Any, *, threshold: float = 0.7, samples: int | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        self.threshold = number("threshold", threshold, low=0, high=1)
        super().__init__(env, samples=samples, seed=seed, **kwargs)

    def enough(self, seen: Seen) -> np.ndarray:
        return super().enough(seen) | (np.where(seen.finished, seen.score, -1.0).max(1) >= self.threshold)


class Memory(NamedTuple):
    """What Parallel-Probe keeps of every row from step to step."""

    against: np.ndarray  # [B, M] rounds in a row in which a branch disagreed
    leader: np.ndarray  # [B] the answer that led last
    stable: np.ndarray  # [B] rounds in a row in which it led
    rounds: np.ndarray  # [B] rounds gone
    moved: np.ndarray  # [B, M] whether a branch was gone on with in this round


class ParallelProbe(Controller):
    """All branches go on together, segment by segment, and are asked after each (AutoTTS's baseline).

    A branch that disagrees with the leading answer so often in a row is dropped, after a warm-up; the same leader for
    so many rounds, or no branch left to go on with, ends the thinking.

    Args:
        env: the environment.
        width: branches; None: as many as there is room for.
        warm_up: rounds without dropping or stopping.
        patience: rounds of disagreement after which a branch is dropped.
        stop_after: rounds that one answer must lead.
    """

    def __init__(
        self, env: Any, *, width: int | None = None, warm_up: int = 2, patience: int = 2, stop_after: int = 3,
        seed: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.width = None if width is None else whole("width", width, low=1)
        self.warm_up, self.patience = whole("warm_up", warm_up, low=0), whole("patience", patience, low=1)
        self.stop_after = whole("stop_after", stop_after, low=1)
        super().__init__(env, seed=seed, **kwargs)

    def decide(
        self, rows: dict[str, np.ndarray], state: Any, *, begun: bool, deterministic: bool
    ) -> tuple[np.ndarray, Any]:
        seen = self.look(rows)
        size = len(seen.opened)
        if not isinstance(state, Memory) or len(state.leader) != size:
            state = Memory(
                np.zeros((size, self.branches), np.int64), np.zeros(size, np.int64), np.zeros(size, np.int64),
                np.zeros(size, np.int64), np.zeros((size, self.branches), np.bool_),
            )  # fmt: skip
        memory = Memory(*(part.copy() for part in state))
        new = seen.opened == 0
        for part in memory:
            part[new] = 0
        return np.array([self._row(b, seen, memory) for b in range(size)], np.int64), memory

    def _row(self, b: int, seen: Seen, memory: Memory) -> int:
        legal = seen.legal[b]
        if seen.opened[b] < min(self.width or self.branches, self.branches) and legal[BRANCH]:
            memory.moved[b, seen.opened[b]] = True  # opening says the first segment
            return BRANCH
        for i in np.flatnonzero(seen.active[b] & ~seen.fresh[b] & memory.moved[b]):
            if legal[self.on(1, i)]:
                return int(self.on(1, i))
        waiting = np.flatnonzero(seen.active[b] & ~memory.moved[b])
        if not len(waiting):
            if self._round_over(b, seen, memory):
                return ANSWER
            waiting = np.flatnonzero(seen.active[b])
        late = memory.rounds[b] > self.warm_up
        for i in waiting:
            if late and memory.against[b, i] >= self.patience and legal[self.on(2, i)]:
                memory.moved[b, i] = True
                return int(self.on(2, i))
            if legal[self.on(0, i)]:
                memory.moved[b, i] = True
                return int(self.on(0, i))
        return ANSWER

    def _round_over(self, b: int, seen: Seen, memory: Memory) -> bool:
        """Counts a round and returns whether the thinking is over."""
        votes = np.bincount(seen.label[b][seen.label[b] > 0], minlength=1)
        leader = int(votes.argmax()) if votes.any() else 0
        memory.rounds[b] += 1
        memory.stable[b] = memory.stable[b] + 1 if leader and leader == memory.leader[b] else 1
        memory.leader[b] = leader
        disagrees = seen.active[b] & (seen.label[b] != leader)
        memory.against[b] = np.where(disagrees, memory.against[b] + 1, 0)
        memory.moved[b] = False
        settled = memory.rounds[b] > self.warm_up and leader > 0 and memory.stable[b] >= self.stop_after
        return bool(settled or not seen.active[b].any())
