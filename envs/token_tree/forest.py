"""Walking a forest: every episode is in one of its trees, and lanes move on from tree to tree together.

Each tree is made ready for stepping as a world of its own, and few worlds are kept at a time. So that few are needed,
lanes stay in a tree for some episodes before they go to the next one: an episode's tree follows from its number alone,
by a schedule that is the same for all lanes and passes through all trees, in another order each time. Lanes that run
ahead are in the next tree already, so a step is one or two calls of the kernel.

Letters: B lanes, b some of them, P trees, T reward terms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from treegym.envs.spaces import Spaces
from treegym.envs.states import ORIGIN, check_state, origin_of
from treegym.envs.token_tree.lanes import Lane, Lanes, TreeStep
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError
from treegym.tree.forest import Forest, is_forest

__all__ = ["ForestLane", "ForestLanes", "ForestWorld", "make_lane", "make_lanes"]

KEPT_WORLDS = 4
SHARE = 16  # a lane stays for a 16th of a tree's prompts: 64 lanes see each prompt four times before they go on
SHORTEST = 16  # episodes it stays at least, so that lanes are not spread over many trees


def make_lanes(tree: Any, count: int, *, max_steps: int | None = None, **settings: Any) -> tuple[Any, Any]:
    """Returns the world of a tree, or of a forest, and lanes in it."""
    if is_forest(tree):
        forest = ForestWorld(tree, **settings)
        return forest, ForestLanes(forest, count, max_steps=max_steps)
    world = TreeWorld(tree, **settings)
    return world, Lanes(world, count, max_steps=max_steps)


def make_lane(tree: Any, **settings: Any) -> Any:
    """Returns one lane in a tree, or in a forest."""
    return ForestLane(ForestWorld(tree, **settings)) if is_forest(tree) else Lane(TreeWorld(tree, **settings))


class _PartWorld(TreeWorld):
    """One tree of a forest: that it has no correct end is no fault of the whole."""

    def _check_correct_end(self) -> None:
        pass


class ForestWorld(Spaces):
    """The worlds of a forest's trees, made when they are needed; takes the settings of `TreeWorld`."""

    def __init__(self, forest: str | Forest, *, split: str = "train", **settings: Any) -> None:
        if settings.get("grower") is not None or settings.get("view", "features") != "features":
            raise ConfigError("a forest is closed and shows features; for a live tree or the tokens view open one tree")
        self.tree = forest if isinstance(forest, Forest) else Forest.open(forest)
        self.split, self._settings = split, settings
        counts = self.tree.count_in(split)
        self._able = np.flatnonzero(counts)  # trees with prompts of the split
        if not len(self._able):
            raise ConfigError(f"the forest has no roots in split {split!r}; choose another split")
        self._stay = np.maximum(counts[self._able] // SHARE, SHORTEST)
        self._progress: float | None = None
        self._worlds: OrderedDict[int, TreeWorld] = OrderedDict()
        first = self.world(int(self._able[0]))
        self.layout, self.layout_size, self.num_actions = first.layout, first.layout_size, first.num_actions
        self.low, self.high, self.max_tokens = first.low, first.high, first.max_tokens
        self.table, self.illegal_penalty, self.token_limit = first.table, first.illegal_penalty, first.token_limit
        self.shaped, self.pool = first.shaped, None
        self.origin = origin_of(
            [self.tree.common, self.max_tokens, self.token_limit, self.num_actions], self.tree.node_start,
            self.tree.root_start,
        )  # fmt: skip

    @property
    def terms(self) -> Sequence[str]:  # type: ignore[override] # the reward decides
        """The terms of the vector reward, in order."""
        return self.table.names

    def world(self, number: int) -> TreeWorld:
        """Returns the world of a tree; those used last are kept."""
        if number not in self._worlds:
            while len(self._worlds) >= KEPT_WORLDS:
                self._worlds.popitem(last=False)
            self._worlds[number] = _PartWorld(self.tree.tree(number), split=self.split, **self._settings)
            if self._progress is not None:
                self._worlds[number].set_progress(self._progress)
        self._worlds.move_to_end(number)
        return self._worlds[number]

    def tree_of(self, episodes: np.ndarray) -> np.ndarray:
        """Returns which tree each episode, by its number in its lane, is in ``[b] int64``."""
        length = int(self._stay.sum())
        found = np.empty(len(episodes), np.int64)
        for round_ in np.unique(episodes // length).tolist():
            order = np.random.default_rng(round_).permutation(len(self._able))
            here = episodes // length == round_
            place = np.searchsorted(np.cumsum(self._stay[order]), episodes[here] % length, side="right")
            found[here] = self._able[order[place]]
        return found

    def raw(self, nodes: np.ndarray) -> np.ndarray:
        """Returns what coming to nodes pays before it is shaped ``[b]``."""
        found = np.empty(len(nodes))
        for here, world, own in self._by_tree(nodes):
            found[here] = world.raw(own)
        return found

    def raw_terms(self, nodes: np.ndarray) -> np.ndarray:
        """Returns the reward terms in the table at nodes ``[b, T]``."""
        found = np.empty((len(nodes), len(self.terms)), np.float32)
        for here, world, own in self._by_tree(nodes):
            found[here] = world.raw_terms(own)
        return found

    def _by_tree(self, nodes: np.ndarray) -> Iterator[tuple[np.ndarray, TreeWorld, np.ndarray]]:
        """Yields which of the nodes are in one tree ``[.] int``, its world, and their numbers there."""
        starts = self.tree.node_start
        numbers = np.searchsorted(starts, nodes, side="right") - 1
        for number in np.unique(numbers).tolist():
            here = np.flatnonzero(numbers == number)
            yield here, self.world(number), nodes[here] - starts[number]

    def set_progress(self, progress: float) -> None:
        """Anneals what the reward lets fall over a training, in every tree."""
        self._progress = progress
        for world in self._worlds.values():
            world.set_progress(progress)

    def __deepcopy__(self, memo: Any) -> ForestWorld:
        return self  # nothing here belongs to an episode


class ForestLanes:
    """B episodes in a forest. Where one starts is drawn from the lane's key and its episode number, nothing else."""

    def __init__(self, world: ForestWorld, count: int, *, max_steps: int | None = None) -> None:
        self.world, self.count, self._max_steps = world, count, max_steps
        self.limit = world.token_limit if max_steps is None else min(world.token_limit, max_steps)
        self.part = np.full(count, int(world._able[0]), np.int64)  # [B] which tree each lane is in
        self._all = Lanes(world.world(int(self.part[0])), count, max_steps=max_steps)
        self.steps, self.done, self.key, self.episode = (
            self._all.steps,
            self._all.done,
            self._all.key,
            self._all.episode,
        )

    @property
    def node(self) -> np.ndarray:
        """The nodes that lanes stand on, as the forest numbers them ``[B] int64``."""
        return self._all.node + self.world.tree.node_start[self.part]

    def roots(self) -> np.ndarray:
        """Returns which prompt each lane is under ``[B] int64``."""
        found = np.empty(self.count, np.int64)
        for lanes, part in self._parts():
            found[lanes] = part.roots() + self.world.tree.root_start[self.part[lanes]]
        return found

    def seed(self, keys: np.ndarray) -> None:
        """Gives every lane its key ``[B] uint64``: the whole of its randomness."""
        self._all.seed(keys)

    def begin(self, which: np.ndarray | None = None, roots: np.ndarray | None = None) -> None:
        """Starts episodes in the lanes of `which` ``[B] bool``, at `roots` ``[B]`` where those are not -1."""
        which = np.ones(self.count, bool) if which is None else which
        forced = np.full(self.count, -1, np.int64) if roots is None else np.asarray(roots, np.int64)
        starts = self.world.tree.root_start
        if ((forced < -1) | (forced >= starts[-1])).any():
            bad = forced[(forced < -1) | (forced >= starts[-1])][0]
            raise ConfigError(f"root {bad} is out of range; the forest has roots 0 to {starts[-1] - 1}")
        self._enter(which)
        self.part = np.where(which & (forced >= 0), np.searchsorted(starts, forced, side="right") - 1, self.part)
        own = np.where(forced >= 0, forced - starts[self.part], -1)
        for lanes, part in self._parts(np.flatnonzero(which)):
            part.begin(roots=own[lanes])
            self._take(lanes, part)

    def _enter(self, which: np.ndarray) -> None:
        """Puts lanes that are about to begin into the trees of their next episodes."""
        if which.any():
            self.part = self.part.copy()
            self.part[which] = self.world.tree_of(self.episode[which])

    def _parts(self, lanes: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Lanes]]:
        """Yields lanes ``[b] int`` of one tree, and a copy of them that can step there; all in one, they themselves."""
        lanes = np.arange(self.count) if lanes is None else lanes
        numbers = np.unique(self.part[lanes])
        for number in numbers.tolist():
            world = self.world.world(number)
            here = lanes[self.part[lanes] == number]
            if len(here) == self.count:
                self._all.world = world
                yield here, self._all
                return
            part = Lanes(world, len(here), max_steps=self._max_steps)
            for name in ("node", "steps", "done", "key", "episode"):
                getattr(part, name)[:] = getattr(self._all, name)[here]
            yield here, part

    def _take(self, lanes: np.ndarray, part: Lanes) -> None:
        """Takes over what became of a copy."""
        if part is not self._all:
            for name in ("node", "steps", "done", "episode"):
                getattr(self._all, name)[lanes] = getattr(part, name)

    def step(self, actions: np.ndarray, *, next_step_reset: bool) -> tuple[TreeStep, dict[str, np.ndarray]]:
        """Moves every lane one step and returns the outcome and fresh observations."""
        if next_step_reset:
            self._enter(self.done)
        whole: tuple[Any, dict[str, np.ndarray]] | None = None
        for lanes, part in self._parts():
            outcome, seen = part.step(actions[lanes], next_step_reset=next_step_reset)
            self._take(lanes, part)
            if len(lanes) == self.count:
                whole = outcome, seen
                break
            if whole is None:
                blank = TreeStep(*(np.empty((self.count, *a.shape[1:]), a.dtype) for a in outcome))
                whole = blank, {k: np.empty((self.count, *a.shape[1:]), a.dtype) for k, a in seen.items()}
            for kept, found in zip((*whole[0], *whole[1].values()), (*outcome, *seen.values()), strict=True):
                kept[lanes] = found
        assert whole is not None
        roots = whole[0].root + self.world.tree.root_start[self.part]
        return whole[0]._replace(root=roots), whole[1]

    def advance(self, actions: np.ndarray, *, next_step_reset: bool) -> TreeStep:
        """Does the same for whoever looks at nothing."""
        return self.step(actions, next_step_reset=next_step_reset)[0]

    def observe(self, lanes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns fresh observations of some lanes ``[b] int``; None: all."""
        asked = np.arange(self.count) if lanes is None else np.asarray(lanes)
        found = self.world.world(int(self.part[0])).blank_observations(self.count)
        for here, part in self._parts(np.unique(asked)):
            for name, rows in part.observe().items():
                found[name][here] = rows
        return found if lanes is None else {name: rows[asked] for name, rows in found.items()}

    def places(self, lanes: np.ndarray) -> np.ndarray:
        """Returns the nodes that some lanes stand on ``[b] int64``."""
        return self.node[lanes]

    def placed(self, places: np.ndarray) -> Self:
        """Returns fresh lanes that stand on these nodes."""
        lanes = type(self)(self.world, len(places))
        starts = self.world.tree.node_start
        lanes.part = np.searchsorted(starts, places, side="right") - 1
        lanes._all.node[:], lanes.done[:] = places - starts[lanes.part], False
        for here, part in lanes._parts():
            lanes.steps[here] = part.world.tree.depth[part.node]
        return lanes

    def state(self) -> dict[str, np.ndarray]:
        """Returns a copy of all state, to go back to with `restore`."""
        state = self._all.state()
        return {**state, "part": self.part.copy(), ORIGIN: np.full(self.count, self.world.origin, np.int64)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state; raises for one of another number of lanes, another environment or no sound place."""
        check_state(state, self.state())
        parts = np.asarray(state["part"])
        if parts.min(initial=0) < 0 or parts.max(initial=0) >= len(self.world.tree.parts):
            raise ConfigError("this state is in a tree that the forest does not have; it comes from another forest")
        for number in np.unique(parts).tolist():
            here = np.flatnonzero(parts == number)
            world = self.world.world(number)
            part = Lanes(world, len(here), max_steps=self._max_steps)
            own = {name: rows[here] for name, rows in state.items() if name != "part"}
            part.restore({**own, ORIGIN: np.full(len(here), world.origin, np.int64)})
        for name in ("node", "steps", "done", "key", "episode"):
            getattr(self._all, name)[:] = state[name]
        self.part = parts.copy()


class ForestLane:
    """One episode in a forest: a `Lane` of the tree that it is in."""

    def __init__(self, forest: ForestWorld) -> None:
        self.forest = forest
        self.part = int(forest._able[0])
        self._lane = Lane(forest.world(self.part))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_lane":  # copying asks before there is anything
            raise AttributeError(name)
        return getattr(self._lane, name)

    @property
    def over(self) -> ForestWorld:
        return self.forest

    def roots(self) -> np.ndarray:
        return self._lane.roots() + self.forest.tree.root_start[self.part]

    def begin(self, which: np.ndarray | None = None, roots: np.ndarray | None = None) -> None:
        """Starts an episode, in the tree of its root or of its number."""
        starts = self.forest.tree.root_start
        root = -1 if roots is None else int(roots[0])
        if root >= starts[-1]:
            raise ConfigError(f"root {root} is out of range; the forest has roots 0 to {starts[-1] - 1}")
        number = np.searchsorted(starts, root, side="right") - 1 if root >= 0 else self.forest.tree_of(self.episode)[0]
        self._move(int(number))
        self._lane.begin(roots=None if root < 0 else np.array([root - starts[self.part]], np.int64))

    def _move(self, number: int) -> None:
        if number != self.part:
            lane = Lane(self.forest.world(number))
            lane.key[:], lane.episode[:] = self._lane.key, self._lane.episode
            self.part, self._lane = number, lane

    def state(self) -> dict[str, np.ndarray]:
        return {**self._lane.state(), "part": np.array([self.part]), ORIGIN: np.array([self.forest.origin], np.int64)}

    def restore(self, state: Mapping[str, Any]) -> None:
        check_state(state, self.state())
        number = int(state["part"][0])
        if not 0 <= number < len(self.forest.tree.parts):
            raise ConfigError("this state is in a tree that the forest does not have; it comes from another forest")
        self._move(number)
        own = {name: value for name, value in state.items() if name != "part"}
        self._lane.restore({**own, ORIGIN: np.array([self._lane.world.origin], np.int64)})
