"""Every episode of training, kept as it ends: a recorder that stands between an agent and its environments.

Letters: B lanes, E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from treegym.bench.arena import best_of_root
from treegym.bench.episodes import TrainingEpisodes
from treegym.bench.suite import EnvEntry
from treegym.rewards.judge.term import Judge

__all__ = ["Recorder"]


class Recorder:
    """Collects the episodes of all lanes, those that dynamic sampling throws away included.

    Args:
        entry: the environment, as its suite describes it.
        count: how many lanes there are.
        lanes: their state, where they are lanes of one of our worlds: it says which prompt an episode had, where it
            ended and what the best would have been.
    """

    def __init__(self, entry: EnvEntry, count: int, lanes: Any) -> None:
        self.env_steps = 0
        self.ended = 0  # episodes
        self.judge_calls = 0  # one per episode that a judge has to score, even where the tree has its score stored
        self._entry = entry
        self._lanes = lanes
        self._world: Any = getattr(lanes, "world", None)
        self._tree: Any = getattr(self._world, "tree", None)
        self._judges = _judges(self._world)
        self._return = np.zeros(count)
        self._length = np.zeros(count, np.int32)
        self._failed = np.zeros(count, np.int32)  # steps at which a reward term failed
        self._start = np.full(count, -1, np.int64)  # node, where an episode was begun elsewhere than at its prompt
        self._ended: list[tuple[np.ndarray, ...]] = []  # a tuple of columns for every step in which episodes ended

    def observe(self, world: Any) -> None:
        """Records what happens in a world of `treegym.agents.play.worlds`; the agent steps it as before."""
        step, reset, set_state = world.step, world.reset, world.set_state

        def recorded_step(actions: np.ndarray, active: np.ndarray) -> Any:
            stood = None if self._tree is None else self._lanes.node.copy()
            outcome = step(actions, active)
            # Lanes are driven without info; an illegal action moves nothing, so no reward was looked up for it.
            info = outcome.info
            if stood is not None:
                info = {"reward_failed": self._world.table.failed[self._lanes.node] & (self._lanes.node != stood)}
            self.stepped(active, outcome.reward, outcome.terminated | outcome.truncated, outcome.success, info)
            return outcome

        def recorded_reset(which: np.ndarray, **where: Any) -> None:
            reset(which, **where)
            self.begun(which)

        def recorded_state(state: Mapping[str, np.ndarray]) -> None:
            set_state(state)
            if self._tree is not None:  # an exploring start: episodes that have not moved yet begin where they stand
                self._start = np.where(self._length == 0, self._lanes.node, self._start)

        world.step, world.reset, world.set_state = recorded_step, recorded_reset, recorded_state

    def begun(self, which: np.ndarray) -> None:
        """Forgets what the lanes of ``which [B] bool`` did: they start anew."""
        self._return[which], self._length[which], self._failed[which], self._start[which] = 0.0, 0, 0, -1

    def stepped(
        self, active: np.ndarray, reward: np.ndarray, done: np.ndarray, success: np.ndarray | None, info: Any
    ) -> None:
        """Takes in one step of the lanes of ``active [B] bool``."""
        self.env_steps += int(active.sum())
        reward = np.asarray(reward, np.float64)
        self._return[active] += (reward if reward.ndim == 1 else reward.sum(axis=1))[active]
        self._length[active] += 1
        self._failed[active] += _told(info, "reward_failed", np.flatnonzero(active), otherwise=0.0) > 0.0
        ended = np.flatnonzero(active & done)
        if not len(ended):
            return
        self.ended += len(ended)
        self.judge_calls += self._judges * len(ended)
        unknown = np.full(len(ended), -1, np.int64)
        correct = np.zeros(len(ended)) if success is None else np.nan_to_num(np.asarray(success, np.float64))[ended]
        self._ended.append(
            (
                self._return[ended].copy(),
                self._length[ended].copy(),
                self._start[ended].copy(),
                correct > 0.5,
                unknown if self._tree is None else self._lanes.node[ended].copy(),
                unknown if not hasattr(self._lanes, "root") else self._lanes.root[ended].copy(),
                _told(info, "best_return", ended, otherwise=np.nan),
                self._failed[ended].copy(),
                np.full(len(ended), self.env_steps, np.int64),
            )
        )
        which = np.zeros(len(active), np.bool_)
        which[ended] = True
        self.begun(which)

    def episodes(self) -> TrainingEpisodes:
        """Returns the episodes that have ended so far."""
        nothing = (np.zeros(0), *(np.zeros(0, np.int64) for _ in range(2)), np.zeros(0, np.bool_),
                   *(np.zeros(0, np.int64) for _ in range(2)), np.zeros(0), np.zeros(0, np.int32),
                   np.zeros(0, np.int64))  # fmt: skip
        ret, length, start, correct, end, prompt, best, failed, env_steps = (
            np.concatenate(column) for column in zip(nothing, *self._ended, strict=True)
        )
        true = correct.astype(np.float64)
        if self._tree is not None:
            prompt = self._tree.root_of(end)
            start = np.where(start < 0, np.asarray(self._tree.root_node)[prompt], start)
            verdict = np.asarray(self._tree.verdict)[end].astype(np.float64)
            true = np.where(np.isnan(verdict), true, verdict)
            best = np.asarray(self._world.solution(1.0).value)[start]
        elif (known := best_of_root(self._world)) is not None:
            best = known[prompt]
        return TrainingEpisodes(
            prompt=prompt.astype(np.int32),
            kind=self._kinds(prompt),
            ret=ret,
            correct=correct,
            true=true,
            proxy=ret,
            length=length.astype(np.int32),
            regret=np.maximum(best - ret, 0.0),
            end=end,
            failed=failed,
            start=start,
            env_steps=env_steps,
        )

    def _kinds(self, prompt: np.ndarray) -> np.ndarray:
        names = getattr(self._world if self._tree is None else self._tree, "kinds", None)
        if names is None:
            return np.full(len(prompt), self._entry.name)
        return np.array([names[int(p)] or self._entry.name for p in prompt], dtype=np.str_)


def _judges(world: Any) -> int:
    """Returns how many judges the reward of a world asks about every answer."""
    part = getattr(getattr(world, "reward", None), "part", None)
    return 0 if part is None else sum(isinstance(term, Judge) for term in part.terms())


def _told(info: Any, name: str, lanes: np.ndarray, *, otherwise: float) -> np.ndarray:
    """Returns a number that environments told of some lanes in their info ``[.] float64``, `otherwise` where not."""
    if isinstance(info, Mapping) and "lanes" in info:
        return np.array([float(info["lanes"][lane].get(name, otherwise)) for lane in lanes], np.float64)
    told = info.get(name) if isinstance(info, Mapping) else None
    return np.full(len(lanes), otherwise) if told is None else np.asarray(told, np.float64)[lanes]
