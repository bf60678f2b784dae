"""Worlds as searches see them: what a state shows, what a step pays and where it ends.

What a planner is told is named by `treegym.rewards.sees.Sees`. With ``sees="value"`` an end is also worth what the
critic says of it, and a step may be paid what the policy thinks of it.

Letters: B states, K children.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.agents.masking import mask_of, masked_log_softmax_array
from treegym.agents.planning.doubles import Double
from treegym.agents.planning.memory import path_memory
from treegym.agents.play.world import World, rows_of, scalar_reward
from treegym.agents.policies.base import MEMORY, ChildScorer
from treegym.checks import one_of
from treegym.envs.lanes import Lanes
from treegym.envs.token_tree.world import TreeWorld
from treegym.rewards.sees import Sees
from treegym.search import Evaluation, Transition
from treegym.tree.token_tree import TokenTree

__all__ = [
    "WHERE",
    "CloneSimulator",
    "LanesSimulator",
    "TreeSimulator",
    "rows_at",
    "step_likelihood",
    "visible_reward",
]

WHERE = "where"  # what a double made of a state, beside what is observed there
FLOOR, SCALE = -20.0, 0.1  # of a model's opinion of a token: "none", and log-probabilities against rewards around 1


def visible_reward(world: TreeWorld, nodes: np.ndarray, *, sees: str) -> np.ndarray:
    """Returns what a planner is told that entering nodes pays ``[B] float32``; see `Sees`."""
    if one_of("planner_sees", sees, Sees) == Sees.LIKELIHOOD:
        return step_likelihood(world.tree, nodes)
    if sees == Sees.VALUE:
        return world.table.visible(nodes)
    world.table.ensure(nodes)
    return world.table.total[nodes].astype(np.float32)


def step_likelihood(tree: TokenTree, nodes: np.ndarray) -> np.ndarray:
    """Returns the mean log-probability of nodes under primary and teachers, scaled ``[B] float32``."""
    prior, teachers = np.asarray(tree.prior)[nodes], np.asarray(tree.teacher_logp[nodes], np.float32)
    opinions = np.concatenate([prior[:, None], teachers], axis=1)
    return SCALE * np.nan_to_num(opinions, nan=FLOOR).clip(FLOOR, 0.0).mean(1, dtype=np.float32)


def rows_at(world: TreeWorld, nodes: np.ndarray, policy: ChildScorer | None) -> dict[str, np.ndarray]:
    """Returns what a policy is shown at some nodes, the path's memory among it if its critic reads that."""
    rows = world.observe(nodes, world.tree.depth[nodes].astype(np.int64))
    if policy is not None and policy.memory:
        rows[MEMORY] = path_memory(world.tree, nodes)
    return rows


class TreeSimulator:
    """A token tree, closed or live, as a `Simulator`: a state is a node."""

    def __init__(
        self, world: TreeWorld, policy: ChildScorer | None, *, sees: str = Sees.VALUE, likelihood_weight: float = 0.0
    ) -> None:
        self.world, self.policy, self.sees = world, policy, sees
        self.likelihood_weight = likelihood_weight if sees == Sees.VALUE and policy is not None else 0.0
        self.num_actions = world.num_actions
        self._likelihood: dict[int, np.ndarray] = {}  # node: log-probability of each child [K]

    def sound(self, states: np.ndarray) -> bool:
        """Returns whether these are nodes; they came from a file."""
        whole = isinstance(states, np.ndarray) and states.dtype.kind == "i" and states.ndim == 1
        return whole and bool(((states >= 0) & (states < self.world.tree.size)).all())

    def expand(self, states: np.ndarray) -> Evaluation:
        rows = self._rows(states)
        legal = mask_of(rows, self.num_actions)
        if self.policy is None:
            logits = np.full(legal.shape, -30.0, np.float32)
            children = self.world.tables.first_child[states].astype(np.int64)[:, None] + np.arange(self.num_actions)
            there = legal & (self.world.tables.child_count[states][:, None] > np.arange(self.num_actions))
            logits[there] = self.world.tree.prior[children[there]]
            return Evaluation(logits, np.zeros(len(states), np.float32), legal)
        logits, values = self.policy.infer(rows)
        if self.likelihood_weight:
            self._likelihood.update(zip(states.tolist(), masked_log_softmax_array(logits, legal), strict=True))
        return Evaluation(logits, values, legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        world = self.world
        after = world.tables.first_child[states].astype(np.int64) + actions
        world.prepare_nodes(after)
        reward = visible_reward(world, after, sees=self.sees)
        terminated = world.tables.ends[after] | world.tables.cut_off[after] | (world.tables.child_count[after] == 0)
        if self.sees == Sees.VALUE and self.policy is not None and terminated.any():
            ended = np.flatnonzero(terminated)
            reward[ended] += self.policy.judge(self._rows(states[ended]))[2][np.arange(len(ended)), actions[ended]]
        if self.likelihood_weight:
            pairs = zip(states.tolist(), actions.tolist(), strict=True)
            reward += self.likelihood_weight * np.array([self._likelihood[s][a] for s, a in pairs], np.float32)
        return Transition(after, reward, terminated)

    def key(self, states: np.ndarray) -> np.ndarray:
        return states

    def _rows(self, nodes: np.ndarray) -> dict[str, np.ndarray]:
        return rows_at(self.world, nodes, self.policy)


def _judged(policy: ChildScorer | None, rows: dict[str, np.ndarray], num_actions: int) -> Evaluation:
    """Returns what a policy says of states; without one, no opinion."""
    legal = mask_of(rows, num_actions)
    if policy is None:
        return Evaluation(np.zeros(legal.shape, np.float32), np.zeros(len(legal), np.float32), legal)
    logits, values = policy.infer(rows)
    return Evaluation(logits, values, legal)


class LanesSimulator:
    """The lanes of any world of ours as a `Simulator`: a state is where a lane stands ``[B, ...] int64``."""

    def __init__(self, lanes: Lanes, policy: ChildScorer | None) -> None:
        self.lanes, self.policy = lanes, policy
        self.num_actions = int(lanes.world.num_actions)

    def sound(self, states: np.ndarray) -> bool:
        """Returns whether a lane can stand at each of these places, which came from a file."""
        own = self.lanes.places(np.zeros(1, np.int64))
        if not isinstance(states, np.ndarray) or states.dtype != own.dtype or states.shape[1:] != own.shape[1:]:
            return False
        world: Any = self.lanes.world
        check = getattr(world, "sound", None)
        return bool(((states >= 0) & (states < world.tree.size)).all() if check is None else check(states).all())

    def expand(self, states: np.ndarray) -> Evaluation:
        rows = self.lanes.placed(states).observe()
        return _judged(self.policy, rows, self.num_actions)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        lanes = self.lanes.placed(states)
        outcome = lanes.advance(np.asarray(actions, np.int64), next_step_reset=False)
        ended = outcome.terminated | outcome.truncated
        return Transition(lanes.places(np.arange(len(states))), outcome.reward.astype(np.float32), ended)


class CloneSimulator:
    """Single environments as a `Simulator`, through a double of one of them.

    States are what the double made, under `WHERE`, and what is observed there: two steps that come to different sights
    are chance, which the search finds out.
    """

    def __init__(self, double: Double, world: World, policy: ChildScorer | None) -> None:
        self.double, self.policy = double, policy
        self.space = world.observation_space
        self.num_actions = int(world.action_space.n)

    def expand(self, states: dict[str, np.ndarray]) -> Evaluation:
        return _judged(self.policy, {key: rows for key, rows in states.items() if key != WHERE}, self.num_actions)

    def step(self, states: dict[str, np.ndarray], actions: np.ndarray) -> Transition:
        count = len(actions)
        after = {key: np.empty_like(rows) for key, rows in states.items()}
        reward = np.zeros(count, np.float32)
        terminated = np.zeros(count, np.bool_)
        for i, (state, action) in enumerate(zip(states[WHERE], actions.tolist(), strict=True)):
            after[WHERE][i], seen, pay, terminated[i] = self.double.step(state, action)
            reward[i] = scalar_reward(pay)
            for key, row in rows_of(seen).items():
                if key in after:
                    after[key][i] = row
        return Transition(after, reward, terminated)
