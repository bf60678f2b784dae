"""Baselines over whole answers: every teacher says its answer, and one of them is taken.

Letters: B states, M teachers, N nodes.
"""

from __future__ import annotations

import numpy as np

from treegym.agents.baselines.base import Planning
from treegym.agents.play.standing import Place
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError

__all__ = ["Rerank", "SequenceVote"]

FLOOR = -20.0  # "no opinion", as in the observation


class _Answers(Planning):
    """Walks each teacher's greedy answer down the tree and takes the one of highest score."""

    def _enter_world(self) -> None:
        if getattr(self.world, "tree_world", None) is None:
            raise ConfigError(f"{type(self).__name__} compares whole answers, which only a token tree has")
        self.teachers()
        self._tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def plan(self, place: Place, rows: dict[str, np.ndarray]) -> np.ndarray:
        world: TreeWorld = place.world.tree_world  # type: ignore[attr-defined]
        nodes = place.world.lanes.places(place.lanes)  # type: ignore[attr-defined]
        logp, judged = self._table(world)
        best = np.full(len(nodes), -np.inf)
        first = np.zeros(len(nodes), np.int64)
        for m in range(logp.shape[1]):
            action, score = _walk(world, nodes, logp[:, m], judged)
            better = score > best
            best[better], first[better] = score[better], action[better]
        return first

    def _table(self, world: TreeWorld) -> tuple[np.ndarray, np.ndarray]:
        """Returns the teachers' log-probabilities ``[N, M]`` and what a node adds to an answer's score ``[N]``."""
        if id(world) not in self._tables:
            logp = np.nan_to_num(np.asarray(world.tree.teacher_logp, np.float32), nan=FLOOR).clip(FLOOR, 0.0)
            self._tables[id(world)] = (logp, self.judged(world, logp))
        return self._tables[id(world)]

    def judged(self, world: TreeWorld, logp: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class SequenceVote(_Answers):
    """Takes the teachers' answer that all teachers together find likeliest (mean log-probability, summed over it)."""

    def judged(self, world: TreeWorld, logp: np.ndarray) -> np.ndarray:
        return logp.mean(1)


class Rerank(_Answers):
    """Takes the teachers' answer that the primary model finds likeliest."""

    def judged(self, world: TreeWorld, logp: np.ndarray) -> np.ndarray:
        return np.asarray(world.tree.prior, np.float32).clip(FLOOR, 0.0)


def _walk(world: TreeWorld, nodes: np.ndarray, guide: np.ndarray, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first action ``[B]`` and the score ``[B]`` of the answer that always takes the guide's favourite."""
    tree = world.tree
    at = nodes.astype(np.int64)
    first = np.zeros(len(at), np.int64)
    score = np.zeros(len(at))
    stop = world.tables.ends | world.tables.cut_off | (tree.child_count == 0)
    alive = np.flatnonzero(~stop[at])
    slots = np.arange(world.num_actions)
    start = True
    while len(alive):
        here = at[alive]
        there = slots < tree.child_count[here].astype(np.int64)[:, None]
        children = np.where(there, tree.first_child[here].astype(np.int64)[:, None] + slots, 0)
        action = np.where(there, guide[children], -np.inf).argmax(1)
        at[alive] = children[np.arange(len(alive)), action]
        score[alive] += judged[at[alive]]
        if start:
            first[alive] = action
            start = False
        alive = alive[~stop[at[alive]]]
    return first, score
