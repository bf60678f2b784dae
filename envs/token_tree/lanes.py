"""Lanes: the state of a batch of episodes in one TreeWorld. The single environment is one lane."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from treegym.envs.states import ORIGIN, check_state
from treegym.envs.token_tree import transition
from treegym.envs.token_tree.features import LOGP_FLOOR
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError

__all__ = ["Lane", "Lanes", "TreeStep"]

# What a `Lane` makes of its arrays: neither copied nor pickled.
_VIEWS = ("at", "ended", "reward", "terminated", "truncated", "illegal", "success", "failed", "vector", "_step")
_FIELDS = ("node", "steps", "done", "key", "episode")


class TreeStep(NamedTuple):
    """What a step did in every lane; fresh arrays."""

    reward: np.ndarray  # [B] float64
    terminated: np.ndarray  # [B] bool
    truncated: np.ndarray  # [B] bool
    illegal: np.ndarray  # [B] bool
    success: np.ndarray  # [B] bool, came to a correct end
    vector: np.ndarray  # [B, T] float32, every reward term's raw value
    root: np.ndarray  # [B] int32, the prompt each lane is under now
    failed: np.ndarray  # [B] bool, a reward term failed where a lane came to


class Lanes:
    """B episodes. Where an episode starts is drawn from the lane's key and its episode number, nothing else."""

    def __init__(self, world: TreeWorld, count: int, *, max_steps: int | None = None) -> None:
        """Makes `count` lanes of a world; `max_steps` truncates episodes earlier than the token budget does."""
        self.world = world
        self.limit = world.token_limit if max_steps is None else min(world.token_limit, max_steps)
        self.count = count
        self.node = np.zeros(count, np.int64)
        self.steps = np.zeros(count, np.int64)
        self.done = np.ones(count, bool)
        self.key = np.zeros(count, np.uint64)
        self.episode = np.zeros(count, np.int64)
        self._everyone = np.ones(count, bool)
        self._unforced = np.full(count, -1, np.int64)

    @property
    def over(self) -> TreeWorld:
        """The world that lanes walk from episode to episode."""
        return self.world

    def roots(self) -> np.ndarray:
        """Returns which prompt each lane is under ``[B] int32``."""
        return self.world.tables.root_index[self.node]

    def seed(self, keys: np.ndarray) -> None:
        """Gives every lane its key ``[B] uint64``: the whole of its randomness."""
        self.key[:] = keys
        self.episode[:] = 0

    def begin(self, which: np.ndarray | None = None, roots: np.ndarray | None = None) -> None:
        """Starts episodes in the lanes of `which` ``[B] bool``, at `roots` ``[B]`` where those are not -1."""
        world = self.world
        if roots is not None:
            bad = (roots < -1) | (roots >= world.tree.num_roots)
            if bad.any():
                raise ConfigError(
                    f"root {int(roots[bad][0])} is out of range; the tree has roots 0 to {world.tree.num_roots - 1}"
                )
        transition.begin_episodes(
            self._everyone if which is None else which, self._unforced if roots is None else roots, world.pool,
            world.root_node, self.key, self.episode, self.node, self.steps, self.done,
        )  # fmt: skip
        if world.needs_preparation:
            world.prepare_nodes(self.node)

    def step(self, actions: np.ndarray, *, next_step_reset: bool) -> tuple[TreeStep, dict[str, np.ndarray]]:
        """Moves every lane one step and returns the outcome and fresh observations.

        Lanes that are done begin anew (``next_step_reset``) or stand still.
        """
        world = self.world
        if world.needs_preparation:
            world.prepare_nodes(world.next_nodes(self.node, actions, self.done))
        outcome = self._blank_outcome()
        seen = world.blank_observations(self.count)
        transition.advance_and_observe(
            *self._step_arguments(actions, outcome, next_step_reset),
            seen["observations"].reshape(-1), seen["action_mask"].reshape(-1),
        )  # fmt: skip
        if world.grower is not None and next_step_reset:
            world.prepare_nodes(self.node)
            seen = self.observe()
        elif world.windows is not None:
            seen |= world.windows.around(self.node)
        return outcome, seen

    def advance(self, actions: np.ndarray, *, next_step_reset: bool) -> TreeStep:
        """Moves every lane one step and looks at nothing: for planners that do not need observations."""
        world = self.world
        if world.needs_preparation:
            world.prepare_nodes(world.next_nodes(self.node, actions, self.done))
        outcome = self._blank_outcome()
        tables = world.tables
        transition.advance(
            actions, tables.cells, tables.terms, world.illegal_penalty, self.limit, next_step_reset, world.pool,
            world.root_node, self.key, self.episode, self.node, self.steps, self.done, *outcome,
        )  # fmt: skip
        return outcome

    def _step_arguments(self, actions: np.ndarray, outcome: TreeStep, next_step_reset: bool) -> tuple[Any, ...]:
        """Returns what the kernel of a step takes, but for the memory of the observations."""
        world, tables = self.world, self.world.tables
        return (
            actions, tables.cells, tables.flat_features, tables.width, tables.terms, world.illegal_penalty, self.limit,
            next_step_reset, world.pool, world.root_node, self.key, self.episode, self.node, self.steps, self.done,
            *outcome, LOGP_FLOOR, world.max_tokens,
        )  # fmt: skip

    def _blank_outcome(self) -> TreeStep:
        ended, cut, illegal, success, failed = np.empty((5, self.count), bool)
        vector = np.empty((self.count, self.world.tables.terms.shape[1]), np.float32)
        root = np.empty(self.count, np.int32)
        return TreeStep(np.empty(self.count), ended, cut, illegal, success, vector, root, failed)

    def observe(self, lanes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns fresh observations of some lanes ``[b] int``; None: all."""
        if lanes is None:
            return self.world.observe(self.node, self.steps)
        return self.world.observe(self.node[lanes], self.steps[lanes])

    def places(self, lanes: np.ndarray) -> np.ndarray:
        """Returns the nodes that some lanes stand on ``[b] int64``."""
        return self.node[lanes]

    def placed(self, places: np.ndarray) -> Self:
        """Returns fresh lanes that stand on these nodes."""
        lanes = type(self)(self.world, len(places))
        lanes.node[:], lanes.steps[:], lanes.done[:] = places, self.world.tree.depth[places], False
        return lanes

    def state(self) -> dict[str, np.ndarray]:
        """Returns a copy of all state, to go back to with `restore`."""
        state = {name: getattr(self, name).copy() for name in _FIELDS}
        return {**state, ORIGIN: np.full(self.count, self.world.origin, np.int64)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state; raises for one of another number of lanes, another environment or no sound place."""
        check_state(state, self.state())
        node, steps = state["node"], state["steps"]
        if node.min(initial=0) < 0 or node.max(initial=0) >= self.world.tree.size:
            raise ConfigError("this state stands on a node that the tree does not have; it comes from another tree")
        if ((self.world.tree.depth[node] > steps) | (steps > self.limit)).any() or state["episode"].min(initial=0) < 0:
            raise ConfigError("this state has taken more or fewer steps than can lead to where it stands")
        for name in _FIELDS:
            getattr(self, name)[:] = state[name]


class Lane(Lanes):
    """One episode by the same kernels, its state and last outcome read through memory views.

    For a single lane, turning numpy's scalars into Python's costs more than the step does; a memory view gives Python
    values at once, and the kernel's arguments are gathered only when the world's tables were replaced.
    """

    def __init__(self, world: TreeWorld) -> None:
        super().__init__(world, 1)
        self._action = np.zeros(1, np.int64)
        self._outcome = self._blank_outcome()
        self._look()

    def _look(self) -> None:
        """Makes the views; the kernel's arguments are gathered by the next move."""
        self.at, self.ended = _view(self.node), _view(self.done)
        self.reward, self.terminated, self.truncated, self.illegal, self.success = map(_view, self._outcome[:5])
        self.failed = _view(self._outcome.failed)
        self.vector = self._outcome.vector[0]  # [T] every reward term's raw value; written over by the next move
        self._step: Any = None
        self._gathered_at = -1  # version of the world

    def __getstate__(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if name not in _VIEWS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._look()

    def move(self, action: int) -> dict[str, np.ndarray]:
        """Goes one step and returns a fresh observation; what else came of it is in the views."""
        world = self.world
        self._action[0] = action
        if world.needs_preparation:
            world.prepare_nodes(world.next_nodes(self.node, self._action, self.done))
        if self._gathered_at != world.version:
            self._step = partial(
                transition.advance_and_observe, *self._step_arguments(self._action, self._outcome, False)
            )
            self._gathered_at = world.version
        seen: dict[str, np.ndarray] = {
            "observations": np.empty(world.layout_size, np.float32),
            "action_mask": np.empty(world.num_actions, np.int8),
        }
        self._step(seen["observations"], seen["action_mask"])
        if world.windows is not None:
            ids = world.windows.around(self.node)
            seen |= {name: rows[0] for name, rows in ids.items()}
        return seen


def _view(array: np.ndarray) -> Any:
    return memoryview(array)  # type: ignore[arg-type] # numpy's stubs do not say that arrays are buffers
