"""Trajectories: episodes side by side in flat arrays, and how they are collected.

Letters: B lanes, N steps, E episodes, K children.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from treegym.agents.play.episodes import begin, play
from treegym.agents.play.exploring import InnerStarts
from treegym.agents.play.world import PlayStep, Rows, World
from treegym.agents.policies.base import ChildScorer

__all__ = ["Collector", "Stopped", "Trajectories", "join", "uncounted"]


class Stopped(Exception):
    """A callback asked to stop; what was collected since the last update is dropped."""


@dataclass(frozen=True)
class Trajectories:
    """E episodes (or pieces of episodes), the steps of each in order, one episode after the other."""

    rows: Mapping[str, np.ndarray]  # observations acted on, each [N, ...]
    actions: np.ndarray  # [N] int64
    log_probs: np.ndarray  # [N] float32, of the behaviour policy
    values: np.ndarray  # [N] float32, the critic's; zeros where there is none
    rewards: np.ndarray  # [N] float32
    lengths: np.ndarray  # [E] int64
    terminated: np.ndarray  # [E] bool
    truncated: np.ndarray  # [E] bool; neither: a piece whose episode goes on
    bootstrap: np.ndarray  # [E] float32, value behind the last step; 0 after a terminal
    correct: np.ndarray  # [E] float32: 1, 0, or NaN where the env does not say
    groups: np.ndarray  # [E] int64, episodes of one group start at the same root
    roots: np.ndarray  # [E] int64, -1 where unknown
    valid: np.ndarray = field(default_factory=lambda: np.ones(0, np.bool_))  # [N] bool, which steps to learn from

    def __post_init__(self) -> None:
        if len(self.valid) != len(self.actions):
            object.__setattr__(self, "valid", np.ones(len(self.actions), np.bool_))

    @property
    def steps(self) -> int:
        return len(self.actions)

    @property
    def episodes(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> np.ndarray:
        """Where each episode begins ``[E] int64``."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def returns(self) -> np.ndarray:
        """The undiscounted return of each episode ``[E] float64``."""
        return np.bincount(self.episode_of_step, self.rewards, minlength=self.episodes)

    @property
    def episode_of_step(self) -> np.ndarray:
        """The episode each step belongs to ``[N] int64``."""
        return np.repeat(np.arange(self.episodes), self.lengths)

    @property
    def correctness(self) -> np.ndarray | None:
        """Whether each episode is correct ``[E] bool``; None if the env does not say for all of them."""
        return None if np.isnan(self.correct).any() else self.correct > 0.5

    def select(self, keep: np.ndarray) -> Trajectories:
        """Returns the episodes of ``keep [E] bool``."""
        if keep.all():
            return self
        steps = np.repeat(keep, self.lengths)
        values = {
            name: getattr(self, name)[steps] for name in ("actions", "log_probs", "values", "rewards", "valid")
        } | {name: getattr(self, name)[keep] for name in _PER_EPISODE}
        return Trajectories(rows={key: array[steps] for key, array in self.rows.items()}, **values)

    def with_(self, **changes: Any) -> Trajectories:
        return replace(self, **changes)


_PER_EPISODE = ("lengths", "terminated", "truncated", "bootstrap", "correct", "groups", "roots")


def join(parts: list[Trajectories]) -> Trajectories:
    """Returns the episodes of all parts as one."""
    if len(parts) == 1:
        return parts[0]
    values = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Trajectories) if f.name != "rows"
    }
    return Trajectories(rows={k: np.concatenate([p.rows[k] for p in parts]) for k in parts[0].rows}, **values)


def uncounted(active: int, outcome: PlayStep) -> None:
    """A collector's `on_step` where nobody counts: outside `learn`."""


class Collector:
    """Plays a policy in a world.

    Args:
        world: where.
        policy: who.
        rng: where actions' randomness comes from.
        with_value: whether to ask the critic.
        on_step: called after every step of the lanes with the number of active lanes and what came of it; may raise
            `Stopped`.
        exploring_starts: the share of whole episodes (of groups, where they are played) that begin at an inner node.
    """

    def __init__(
        self,
        world: World,
        policy: ChildScorer,
        rng: np.random.Generator,
        *,
        with_value: bool,
        on_step: Callable[[int, PlayStep], None],
        exploring_starts: float = 0.0,
    ) -> None:
        self.world, self.policy, self.rng = world, policy, rng
        self.exploring_starts = exploring_starts
        self._starts = InnerStarts(world) if exploring_starts else None
        self.with_value, self.on_step = with_value, on_step
        self.running = False  # whether the lanes are in the middle of pieces
        self.finished: list[tuple[float, int]] = []  # return and length of every finished episode since last asked
        self._return = np.zeros(world.num_envs)
        self._length = np.zeros(world.num_envs, np.int64)

    def episodes(
        self,
        count: int,
        roots: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        *,
        seeds: np.ndarray | None = None,
        group_size: int = 1,
        enough: int | None = None,
    ) -> Trajectories:
        """Plays `count` whole episodes, in as many rounds as the lanes need.

        Args:
            count: how many.
            roots: where each starts ``[count]``; None leaves it to the world.
            groups: the group of each ``[count]``; None: every episode is one of its own.
            seeds: what each is reset with ``[count]``, where episodes are to start alike without roots.
            group_size: how many neighbours make a group, which is played whole.
            enough: how many steps are enough: after these no further round begins.
        """
        lanes = self.world.num_envs
        self.running = False  # lanes are reset: a piece could not go on
        parts: list[Trajectories] = []
        steps = 0
        for first in range(0, count, lanes):
            if enough is not None and steps >= enough and first % group_size == 0:
                break
            size = min(lanes, count - first)
            of_round = slice(first, first + size)
            part = self._round(
                size,
                None if roots is None else roots[of_round],
                np.arange(first, first + size) if groups is None else groups[of_round],
                None if seeds is None else seeds[of_round],
                group_size,
            )
            parts.append(part)
            steps += part.steps
        return join(parts)

    def _round(
        self, size: int, roots: np.ndarray | None, groups: np.ndarray, seeds: np.ndarray | None, group_size: int
    ) -> Trajectories:
        """Plays one episode in each of the first `size` lanes."""
        # A seed for every round: where the environment goes from here depends on our own generator alone, so a run
        # that resumes from a checkpoint needs nothing that is inside the environment.
        begin(self.world, size, roots, int(self.rng.integers(2**31)) if seeds is None else seeds)
        if self._starts is not None:
            self._starts.scatter(size, self.exploring_starts, self.rng, group_size=group_size)
        seen: list[Rows] = []
        acted: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        bootstrap = np.zeros(self.world.num_envs, np.float32)

        def choose(who: np.ndarray) -> np.ndarray:
            seen.append(self._rows(who))
            acted.append(self.policy.act(seen[-1], self.rng.random(len(who)), with_value=self.with_value))
            return acted[-1][0]

        def stepped(who: np.ndarray, ended: np.ndarray, outcome: PlayStep) -> None:
            cut = ended & ~outcome.terminated
            if self.with_value and cut.any():
                bootstrap[cut] = self._value(np.flatnonzero(cut))
            self.on_step(len(who), outcome)

        played = play(self.world, size, choose, stepped)
        actions, log_probs, values = (played.ordered(column) for column in zip(*acted, strict=True))
        rewards = played.rewards.astype(np.float32)
        totals = np.bincount(np.repeat(np.arange(size), played.lengths), rewards, minlength=size)
        self.finished += list(zip(totals.tolist(), played.lengths.tolist(), strict=True))
        return Trajectories(
            rows={key: played.ordered([part[key] for part in seen]) for key in seen[0]},
            actions=actions,
            log_probs=log_probs,
            values=values,
            rewards=rewards,
            lengths=played.lengths,
            terminated=played.terminated,
            truncated=played.truncated,
            bootstrap=bootstrap[:size],
            correct=played.success,
            groups=np.asarray(groups, np.int64),
            roots=np.full(size, -1, np.int64) if roots is None else np.asarray(roots, np.int64),
        )

    def pieces(self, steps: int) -> Trajectories:
        """Plays `steps` steps in every lane, going on where the last call stopped; episodes are cut at the edges."""
        world, lanes = self.world, self.world.num_envs
        if not self.running:
            world.reset(np.ones(lanes, np.bool_), seed=int(self.rng.integers(2**31)))
            self._return[:] = 0.0
            self._length[:] = 0
            self.running = True
        here = self._rows(None)
        kept = {key: np.empty((steps, *array.shape), array.dtype) for key, array in here.items()}
        actions = np.empty((steps, lanes), np.int64)
        log_probs, values, rewards, behind, correct = (np.zeros((steps, lanes), np.float32) for _ in range(5))
        correct[:] = np.nan
        terminated, truncated = np.zeros((steps, lanes), np.bool_), np.zeros((steps, lanes), np.bool_)
        uniforms = self.rng.random((steps, lanes))
        everyone = np.ones(lanes, np.bool_)
        for t in range(steps):
            for key, array in here.items():
                kept[key][t] = array
            actions[t], log_probs[t], values[t] = self.policy.act(here, uniforms[t], with_value=self.with_value)
            outcome = world.step(actions[t], everyone)
            rewards[t] = outcome.reward
            terminated[t] = outcome.terminated
            truncated[t] = outcome.truncated & ~outcome.terminated
            self._return += outcome.reward
            self._length += 1
            ended = terminated[t] | truncated[t]
            if ended.any():
                if outcome.success is not None:
                    correct[t, ended] = outcome.success[ended]
                if self.with_value and truncated[t].any():
                    behind[t, truncated[t]] = self._value(np.flatnonzero(truncated[t]))
                self.finished += list(zip(self._return[ended].tolist(), self._length[ended].tolist(), strict=True))
                self._return[ended] = 0.0
                self._length[ended] = 0
                world.reset(ended, seed=int(self.rng.integers(2**31)))
            here = self._rows(None)
            self.on_step(lanes, outcome)
        if self.with_value:
            open_ended = ~(terminated[-1] | truncated[-1])
            if open_ended.any():
                behind[-1, open_ended] = self._value(np.flatnonzero(open_ended))
        return _cut(kept, actions, log_probs, values, rewards, behind, correct, terminated, truncated)

    def position(self) -> dict[str, np.ndarray]:
        """Returns what is known of the episodes the lanes are in the middle of, for a checkpoint."""
        return {"return": self._return.copy(), "length": self._length.copy()}

    def set_position(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes on where `position` was taken; the world itself must have been restored."""
        self._return[:] = arrays["return"]
        self._length[:] = arrays["length"]
        self.running = True

    def _rows(self, lanes: np.ndarray | None) -> Rows:
        """Returns what the policy needs of what `lanes` see."""
        return self.world.observe(lanes, self.policy.needs)

    def _value(self, lanes: np.ndarray) -> np.ndarray:
        return self.policy.infer(self._rows(lanes))[1]


def _cut(
    kept: Rows,
    actions: np.ndarray,
    log_probs: np.ndarray,
    values: np.ndarray,
    rewards: np.ndarray,
    behind: np.ndarray,
    correct: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
) -> Trajectories:
    """Returns ``[T, B]`` arrays as pieces, lane after lane, cut where episodes end."""
    steps = len(actions)

    def flat(array: np.ndarray) -> np.ndarray:
        return np.swapaxes(array, 0, 1).reshape(-1, *array.shape[2:])

    ends = terminated | truncated
    ends[-1] = True
    last = np.flatnonzero(flat(ends))  # [E] the last step of each piece
    lengths = np.diff(last, prepend=-1)
    count = len(last)
    return Trajectories(
        rows={key: flat(array) for key, array in kept.items()},
        actions=flat(actions),
        log_probs=flat(log_probs),
        values=flat(values),
        rewards=flat(rewards),
        lengths=lengths,
        terminated=flat(terminated)[last],
        truncated=flat(truncated)[last],
        bootstrap=flat(behind)[last],
        correct=flat(correct)[last],
        groups=np.arange(count),
        roots=np.full(count, -1, np.int64),
        valid=np.ones(steps * actions.shape[1], np.bool_),
    )
