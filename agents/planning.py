"""What planners see of a world, and how they search it: by tables on closed token trees, by a simulator elsewhere.

On held-out roots a planner never sees the verdict. With ``sees="value"`` the reward holds only terms that a real
deployment would have (judge, perplexity, length, ...) and an end is worth what the value network says of it; with
``sees="verifier"`` the full reward is used, as one may where a checker exists. Every result says which.

Letters: N nodes, B states, K children, R roots.
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from treegym.agents.foreign_worlds import ListWorld
from treegym.agents.native_worlds import LanesWorld
from treegym.agents.policies.base import ChildScorer, as_rows, mask_of
from treegym.agents.world import World, scalar_reward
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError
from treegym.search import Evaluation, SearchResult, Transition, search, search_closed

__all__ = [
    "DEPLOYABLE",
    "CloneSimulator",
    "ClosedPlanner",
    "LanesSimulator",
    "Planner",
    "SimulatorPlanner",
    "TreeSimulator",
    "make_planner",
    "visible_reward",
]

SEES = ("value", "verifier")
# reward terms that need neither the reference answer nor the verdict
DEPLOYABLE = frozenset(
    {"diversity", "judge", "kl", "length", "lmgt", "loglikelihood", "perplexity", "reward_model", "similarity",
     "soft_overlong"}
)  # fmt: skip


def visible_reward(world: TreeWorld, nodes: np.ndarray, *, sees: str) -> np.ndarray:
    """Returns what a planner is told entering nodes pays ``[B] float32``.

    Without the verifier: the weighted sum of the deployable terms (where the reward composes them otherwise, this is
    what can be told without knowing the rest).
    """
    if sees not in SEES:
        raise ConfigError(f"planner_sees must be one of {', '.join(SEES)}, got {sees!r}")
    table = world.table
    if not table.complete:
        table.ensure(nodes)
    if sees == "verifier":
        return table.total[nodes].astype(np.float32)
    columns = [t for t, name in enumerate(table.names) if name in DEPLOYABLE and table.weights[t] != 0]
    if not columns:
        return np.zeros(len(nodes), np.float32)
    return (table.vector(nodes)[:, columns] @ table.weights[columns]).astype(np.float32)


class Planner(Protocol):
    """Searches from where the lanes of a world stand."""

    def prepare(self, policy: ChildScorer | None, roots: np.ndarray | None = None) -> None:
        """Takes the networks as they are now; `roots` narrows down where searches will be."""
        ...

    def search(self, states: Any, *, method: str, num_simulations: int, seed: int, **options: Any) -> SearchResult:
        """Plans from each state."""
        ...

    def states(self, lanes: np.ndarray) -> Any:
        """Returns the states of some lanes of the world the planner was made for."""
        ...


class ClosedPlanner:
    """Plans on a closed token tree: the networks are tabulated over the nodes, whole searches run in one kernel."""

    def __init__(self, world: TreeWorld, lanes: Any = None, *, sees: str = "value") -> None:
        self.world, self.sees, self._lanes = world, sees, lanes
        size = world.tree.size
        self.terminal = world.ends | world.cut_off | (world.child_count == 0)  # [N] bool
        self.reward = visible_reward(world, np.arange(size), sees=sees)  # [N] float32
        self.paid = self.reward.copy()  # [N] float32, with what ends are estimated to be worth
        self.logits = np.zeros(size, np.float32)  # [N], of each node among its siblings
        self.value = np.zeros(size, np.float32)  # [N]
        self.evaluated = 0  # states the networks judged since made

    def prepare(self, policy: ChildScorer | None, roots: np.ndarray | None = None) -> None:
        """Tabulates the networks over the trees of `roots` (indices; None: all). Without a policy: prior, value 0."""
        world = self.world
        if policy is None:
            self.logits = world.tree.prior.astype(np.float32)
            return
        nodes = np.arange(world.tree.size) if roots is None else nodes_under(world, roots)
        inner = nodes[~self.terminal[nodes]]
        for part in _chunks(inner, 8192):
            rows = world.observe(part, world.tree.depth[part].astype(np.int64))
            logits, values, worth = policy.judge(rows)
            slot = np.arange(logits.shape[1])
            there = slot < world.child_count[part].astype(np.int64)[:, None]
            children = (world.first_child[part].astype(np.int64)[:, None] + slot)[there]
            self.logits[children] = logits[there]
            self.value[part] = values
            if self.sees == "value":
                self.paid[children] = self.reward[children] + np.where(self.terminal[children], worth[there], 0.0)
        self.evaluated += len(inner)

    def search(self, states: Any, *, method: str, num_simulations: int, seed: int, **options: Any) -> SearchResult:
        return search_closed(
            first_child=self.world.first_child,
            child_count=self.world.child_count,
            terminal=self.terminal,
            reward=self.paid,
            prior_logits=self.logits,
            value=self.value,
            roots=states,
            num_simulations=num_simulations,
            method=method,
            num_actions=self.world.num_actions,
            seed=seed,
            **options,
        )

    def states(self, lanes: np.ndarray) -> np.ndarray:
        return self._lanes.node[lanes]


class TreeSimulator:
    """A token tree, closed or live, as a `Simulator`: a state is a node."""

    def __init__(self, world: TreeWorld, policy: ChildScorer | None, *, sees: str = "value") -> None:
        self.world, self.policy, self.sees = world, policy, sees
        self.num_actions = world.num_actions
        self.evaluated = 0

    def expand(self, states: np.ndarray) -> Evaluation:
        rows = self._rows(states)
        legal = mask_of(rows, self.num_actions)
        self.evaluated += len(states)
        if self.policy is None:
            logits = np.full(legal.shape, -30.0, np.float32)
            children = self.world.first_child[states].astype(np.int64)[:, None] + np.arange(self.num_actions)
            there = legal & (self.world.child_count[states][:, None] > np.arange(self.num_actions))
            logits[there] = self.world.tree.prior[children[there]]
            return Evaluation(logits, np.zeros(len(states), np.float32), legal)
        logits, values = self.policy.infer(rows)
        return Evaluation(logits, values, legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        world = self.world
        after = world.first_child[states].astype(np.int64) + actions
        world.prepare_nodes(after)
        reward = visible_reward(world, after, sees=self.sees)
        terminated = world.ends[after] | world.cut_off[after] | (world.child_count[after] == 0)
        if self.sees == "value" and self.policy is not None and terminated.any():
            ended = np.flatnonzero(terminated)
            reward[ended] += self.policy.judge(self._rows(states[ended]))[2][np.arange(len(ended)), actions[ended]]
        return Transition(after, reward, terminated)

    def key(self, states: np.ndarray) -> np.ndarray:
        return states

    def _rows(self, nodes: np.ndarray) -> dict[str, np.ndarray]:
        return self.world.observe(nodes, self.world.tree.depth[nodes].astype(np.int64))


class LanesSimulator:
    """Candidate selection as a `Simulator`: a state is a row of the lanes' state ``[B, S] int64``."""

    def __init__(self, lanes: Any, policy: ChildScorer | None) -> None:
        self.lanes, self.policy = lanes, policy
        self.num_actions = int(lanes.world.num_actions)
        self.evaluated = 0

    def expand(self, states: np.ndarray) -> Evaluation:
        rows = self.lanes.world.observe(np.ascontiguousarray(states))
        self.evaluated += len(states)
        legal = mask_of(rows, self.num_actions)
        if self.policy is None:
            return Evaluation(np.zeros(legal.shape, np.float32), np.zeros(len(states), np.float32), legal)
        logits, values = self.policy.infer(rows)
        return Evaluation(logits, values, legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        lanes = type(self.lanes)(self.lanes.world, len(states))
        lanes.state[:], lanes.done[:] = states, False
        chosen = np.asarray(actions, np.int64)
        if hasattr(lanes, "step"):
            outcome, _ = lanes.step(chosen, next_step_reset=False)
        else:
            outcome = lanes.advance(chosen, next_step_reset=False)
        ended = outcome.terminated | outcome.truncated
        return Transition(lanes.state.copy(), outcome.reward.astype(np.float32), ended)


class CloneSimulator:
    """Any single environment with `clone_state` and `restore_state` (which returns the observation there).

    A state is what the environment made, and what is observed there.
    """

    def __init__(self, env: gym.Env, policy: ChildScorer | None) -> None:
        self.env, self.policy = env, policy
        self.inner: Any = env.unwrapped
        self.num_actions = int(env.action_space.n)  # type: ignore[attr-defined]
        self.evaluated = 0

    def expand(self, states: np.ndarray) -> Evaluation:
        seen = [as_rows(observation, self.env.observation_space)[0] for _, observation in states]
        rows = {key: np.concatenate([row[key] for row in seen]) for key in seen[0]}
        self.evaluated += len(states)
        legal = mask_of(rows, self.num_actions)
        if self.policy is None:
            return Evaluation(np.zeros(legal.shape, np.float32), np.zeros(len(states), np.float32), legal)
        logits, values = self.policy.infer(rows)
        return Evaluation(logits, values, legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        after = np.empty(len(states), object)
        reward = np.zeros(len(states), np.float32)
        terminated = np.zeros(len(states), np.bool_)
        for i, ((state, _), action) in enumerate(zip(states, actions.tolist(), strict=True)):
            self.inner.restore_state(state)
            observation, pay, ended, cut, _ = self.inner.step(action)
            after[i] = (self.inner.clone_state(), observation)
            reward[i], terminated[i] = scalar_reward(pay), ended or cut
        return Transition(after, reward, terminated)


class SimulatorPlanner:
    """Plans through a `Simulator`, one batched evaluation after the other."""

    def __init__(self, make: Any, lanes: Any) -> None:
        self._make, self._lanes = make, lanes
        self.simulator: Any = None

    def prepare(self, policy: ChildScorer | None, roots: np.ndarray | None = None) -> None:
        self.simulator = self._make(policy)

    def search(self, states: Any, *, method: str, num_simulations: int, seed: int, **options: Any) -> SearchResult:
        return search(self.simulator, states, method=method, num_simulations=num_simulations, seed=seed, **options)

    def states(self, lanes: np.ndarray) -> Any:
        return self._lanes(lanes)


def make_planner(world: World, *, sees: str = "value", tabulate: bool = True) -> Planner | None:
    """Returns a planner for a world, or None if the world can be neither looked up nor cloned.

    `sees` is about token trees. Elsewhere the simulator is a copy of the environment, which pays what it pays: whoever
    compares there counts the simulations.
    """
    if isinstance(world, LanesWorld):
        inner = world.tree_world
        if inner is None:
            lanes = world.lanes
            return SimulatorPlanner(lambda policy: LanesSimulator(lanes, policy), lambda who: lanes.state[who].copy())
        if tabulate and inner.grower is None and inner.table.complete:
            return ClosedPlanner(inner, world.lanes, sees=sees)
        return SimulatorPlanner(
            lambda policy: TreeSimulator(inner, policy, sees=sees), lambda who: world.lanes.node[who]
        )
    envs = world.envs if isinstance(world, ListWorld) else []
    if envs and all(hasattr(env.unwrapped, "clone_state") and hasattr(env.unwrapped, "restore_state") for env in envs):
        scratch = envs[0]

        def states(who: np.ndarray) -> np.ndarray:
            found = np.empty(len(who), object)
            for i, lane in enumerate(who.tolist()):
                inner: Any = envs[lane].unwrapped
                state = inner.clone_state()
                found[i] = (state, inner.restore_state(state))
            return found

        return _Restoring(lambda policy: CloneSimulator(scratch, policy), states, scratch)
    return None


class _Restoring(SimulatorPlanner):
    """A planner that borrows an environment which plays as well, and puts it back where it stood."""

    def __init__(self, make: Any, lanes: Any, env: gym.Env) -> None:
        super().__init__(make, lanes)
        self._inner: Any = env.unwrapped

    def search(self, states: Any, *, method: str, num_simulations: int, seed: int, **options: Any) -> SearchResult:
        before = self._inner.clone_state()
        try:
            return super().search(states, method=method, num_simulations=num_simulations, seed=seed, **options)
        finally:
            self._inner.restore_state(before)


def nodes_under(world: TreeWorld, roots: np.ndarray) -> np.ndarray:
    """Returns the nodes of some roots' trees ``[.] int64``."""
    wanted = np.zeros(world.tree.num_roots, np.bool_)
    wanted[roots] = True
    return np.flatnonzero(wanted[world.root_index])


def _chunks(array: np.ndarray, size: int) -> list[np.ndarray]:
    return [array[first : first + size] for first in range(0, len(array), size)]
