"""A search that goes on: budgets, moves with the tree kept, transpositions, saving and resuming."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from typing import Any

import numpy as np

from treegym.errors import ConfigError, DataError
from treegym.files import read_arrays, write_arrays
from treegym.search.answers import of_trees
from treegym.search.chance import draw, most_outcomes
from treegym.search.checks import budget, check_range, expanded, positive, stepped
from treegym.search.lean import LeanRounds
from treegym.search.planner import Planner
from treegym.search.saved import check_known
from treegym.search.settings import Options, seed_bits
from treegym.search.simulator import Answers, Evaluation, SearchResult, Simulator
from treegym.search.states import StateStore, count, differing, names_of, restore, take
from treegym.search.told import Leaves
from treegym.search.tree import EMPTY
from treegym.untrusted import json_of

__all__ = ["Session"]

_FORMAT = "treegym search 1"
_VALUES = 2**22  # in the note: four for each state that is known by its name


class Session:
    """Plans from B states of a simulator, round by round, and keeps what it knows between moves."""

    def __init__(
        self,
        simulator: Simulator,
        states: Any,
        *,
        method: str = "gumbel",
        num_simulations: int,
        seed: int = 0,
        root_ids: np.ndarray | None = None,
        options: Options | None = None,
    ) -> None:
        """Judges the roots; `run` does the rest. See `Planner` for the arguments."""
        self.simulator, options = simulator, options or Options()
        if most := most_outcomes(simulator):
            options = dataclasses.replace(options, outcomes=most)
        self.planner = Planner(
            expanded(simulator, states, "at the roots"),
            method=method,
            num_simulations=num_simulations,
            seed=seed,
            options=options,
            root_ids=root_ids,
        )
        self.calls = 1  # evaluator calls so far
        self._store = StateStore(states, self.planner.size * self.planner.capacity)
        self._store.put(np.arange(count(states), dtype=np.int64) * self.planner.capacity, states)
        self._known: dict[tuple[int, int, Any], int] = {}  # (root, depth, key of the state) -> node

    def run(
        self, *, simulations: int | None = None, model_calls: int | None = None, seconds: float | None = None
    ) -> SearchResult:
        """Searches until a budget is spent: all of `num_simulations` unless less is given. May be called again.

        Args:
            simulations: simulations per root in this run.
            model_calls: calls of the simulator's `expand` in this run.
            seconds: wall-clock time; a round under way is finished.
        """
        planner = self.planner
        simulations = budget("simulations", simulations, whole=True)
        model_calls, seconds = budget("model_calls", model_calls, whole=True), budget("seconds", seconds, whole=False)
        start, calls = time.monotonic(), self.calls
        limit = planner.num_simulations
        if simulations is not None:
            limit = min(limit, int(planner.roots.done.max()) + int(simulations))
        planner.budget[:] = limit
        most = None if model_calls is None else calls + int(model_calls)
        until = None if seconds is None else start + float(seconds)
        while (most is None or self.calls < most) and (until is None or time.monotonic() < until):
            if not self.step():  # the first round in full: it looks closer at the simulator
                break
            if LeanRounds.suit(planner, self._store):
                self._run_lean(most, until)
                break
        return planner.result()

    def _run_lean(self, most: int | None, until: float | None) -> None:
        if (most is not None and self.calls >= most) or (until is not None and time.monotonic() >= until):
            return
        lean = LeanRounds(self.simulator, self.planner, self._store)
        try:
            lean.run(None if most is None else most - self.calls, until)
        finally:
            self.calls += lean.calls

    def result(self) -> SearchResult:
        """Returns what was found so far."""
        return self.planner.result()

    def answers(self, most: int = 1) -> Answers:
        """Returns the best paths found so far, at most so many of each root; they are for one player."""
        planner = self.planner
        if planner.options.outcomes:
            raise ConfigError("answers are paths to follow, and here chance decides; ask for the move to play")
        if planner.options.players > 1 or planner.options.discount < 0:
            raise ConfigError("answers are paths that one player takes; with two, ask for the moves of both in turn")
        return of_trees(planner.trees, planner.capacity, self._store.get, most, float(planner.options.discount))

    def step(self) -> int:
        """Evaluates one round of leaves; returns how many there were. If that fails, the round was never begun."""
        leaves = self.planner.ask()
        if not len(leaves.roots):
            return 0
        try:
            return self._evaluate(leaves)
        except BaseException:
            self.planner.take_back()
            raise

    def _evaluate(self, leaves: Leaves) -> int:
        planner, simulator = self.planner, self.simulator
        chances = None
        if planner.options.outcomes:
            moved, chances = draw(simulator, self._store.get(leaves.parents), leaves.actions, leaves.outcomes)
        else:
            moved = stepped(simulator, self._store.get(leaves.parents), leaves.actions)
        terminated = np.ascontiguousarray(moved.terminated, np.bool_)
        link = self._links(leaves, moved, terminated) if planner.options.transpositions else None
        fresh = ~terminated if link is None else ~terminated & (link < 0)
        alive = np.flatnonzero(fresh)
        evaluation: Evaluation | None = None
        if len(alive):
            self.calls += 1
            below = moved.states if len(alive) == len(fresh) else take(moved.states, alive)
            evaluation = expanded(simulator, below, "below the roots")
        numbers = planner.tell(moved.reward, terminated, evaluation, link=link, to_play=moved.to_play, chances=chances)
        if link is None:
            self._store.put(numbers, moved.states)
        else:
            new = np.flatnonzero(numbers >= 0)
            self._store.put(numbers[new], take(moved.states, new))
            self._remember(leaves, moved, terminated, numbers)
        return len(leaves.roots)

    def _links(self, leaves: Any, moved: Any, terminated: np.ndarray) -> np.ndarray:
        """Returns the node that already holds each leaf's state, int32 [L], -1 where none does.

        States are joined at the same depth only, so that no way can lead in a circle, and only where the same reward
        led to them, because a node's reward is kept once.
        """
        if not hasattr(self.simulator, "key"):
            raise ConfigError("transpositions need a simulator with `key(states)`, a name for each state")
        keys = self._keys(moved.states)
        planner = self.planner
        link = np.full(len(keys), -1, np.int32)
        for i, (root, depth, key) in enumerate(zip(leaves.roots.tolist(), leaves.depths.tolist(), keys, strict=True)):
            node = -1 if terminated[i] else self._known.get((root, depth, key), -1)
            if node >= 0 and planner.trees.reward[root, node] == np.float32(moved.reward[i]):
                link[i] = node
        return link

    def _keys(self, states: Any) -> list[Any]:
        """Returns a name for each state: a number, a text, or a tuple where the simulator gives rows."""
        keys = np.asarray(self.simulator.key(states))  # type: ignore[attr-defined]
        return [_hashable(key) for key in keys.tolist()]

    def _remember(self, leaves: Any, moved: Any, terminated: np.ndarray, numbers: np.ndarray) -> None:
        keys = self._keys(moved.states)
        for i in np.flatnonzero((numbers >= 0) & ~terminated).tolist():
            where = (int(leaves.roots[i]), int(leaves.depths[i]), keys[i])
            self._known.setdefault(where, int(numbers[i] % self.planner.capacity))

    @property
    def carried(self) -> np.ndarray:
        """Visits that each root came with from an earlier move's tree, int64 [B]."""
        return self.planner.roots.before.sum(1, dtype=np.int64)

    def keep(self, roots: np.ndarray) -> None:
        """Goes on with some of the roots, int [B] in rising order, and drops the trees of the others."""
        old = self.planner
        if len(roots) == old.size:
            return
        kept = self._store.get((roots[:, None] * old.capacity + np.arange(old.capacity)).reshape(-1))
        self._store = StateStore(kept, count(kept))
        self._store.put(np.arange(count(kept)), kept)
        arrays = {name: array[roots] for name, array in old.arrays().items()}
        used = int(arrays["tree.size"].max())  # the largest tree may have left
        for name in arrays:
            if name.startswith("tree.") and name != "tree.size":
                arrays[name] = arrays[name][:, :used]
        self.planner = Planner.restore(
            arrays,
            method=old.method,
            num_simulations=old.num_simulations,
            num_actions=old.num_actions,
            capacity=old.capacity,
            seed=old.seed,
            options=old.options,
        )
        row = {int(root): b for b, root in enumerate(roots)}
        self._known = {(row[r], d, key): n for (r, d, key), n in self._known.items() if r in row}

    def advance(self, actions: np.ndarray, states: Any, *, seed: int | None = None, strict: bool = True) -> np.ndarray:
        """Plays a move at every root and keeps the tree below it; returns which trees were kept, bool [B].

        Args:
            actions: int [B], the moves played.
            states: the B states they led to (a move that was never visited is judged afresh).
            seed: seeds the noise from here on; the seed stays unless given.
            strict: a state that is not the one in the tree is an error; else that root begins anew, as after a step
                that chance decided. Of outcomes with probabilities, the one that came about is looked for in the tree.
        """
        planner = self.planner
        before = planner.capacity
        if count(states) != planner.size:
            raise ConfigError(f"{count(states)} states were given for {planner.size} roots; one for each is expected")
        kept_nodes = planner.children(actions)
        if planner.options.outcomes:
            kept_nodes = self._came_about(kept_nodes, states)
        surprised = self._elsewhere(kept_nodes, states)
        if strict and len(surprised):
            raise ConfigError(
                f"the state given for root {int(surprised[0])} is not the one that the move leads to in its tree; "
                "where chance decides, advance(..., strict=False) begins anew there"
            )
        kept_nodes[surprised] = EMPTY
        fresh = np.flatnonzero(kept_nodes < 0)
        judged = None  # first, so that a simulator that fails leaves everything as it was
        if len(fresh):
            judged = expanded(self.simulator, take(states, fresh), "at the roots")
            self.calls += 1
        renumber = planner.keep_below(kept_nodes)
        old, self._store = self._store, StateStore(states, planner.size * planner.capacity)
        root, node = np.nonzero(renumber >= 0)
        self._store.put(root * planner.capacity + renumber[root, node], old.get(root * before + node))
        self._store.put(np.arange(planner.size) * planner.capacity, states)
        moved = ((r, d - 1, key, int(renumber[r, n])) for (r, d, key), n in self._known.items())
        self._known = {(r, d, key): n for r, d, key, n in moved if n >= 0}
        if judged is not None:
            planner.plant(fresh, judged)
        if seed is not None:
            planner.seed = seed_bits(seed)
        planner.start()
        kept = np.ones(planner.size, np.bool_)
        kept[fresh] = False
        return kept

    def _came_about(self, moves: np.ndarray, states: Any) -> np.ndarray:
        """Returns the node of the outcome that each move came to, int32 [B], EMPTY where the tree does not have it."""
        trees, found = self.planner.trees, np.full(len(moves), EMPTY, np.int32)
        names = names_of(states)
        for b in np.flatnonzero(moves >= 0).tolist():
            children = trees.child[b, moves[b], : trees.width[b, moves[b]]]
            children = children[children >= 0]
            known = names_of(self._store.get(b * self.planner.capacity + children))
            if names[b] in known:
                found[b] = children[known.index(names[b])]
        return found

    def _elsewhere(self, nodes: np.ndarray, states: Any) -> np.ndarray:
        """Returns the roots for which a state is not the one that the tree has below the move, int64."""
        there = np.flatnonzero(nodes >= 0)
        if not len(there):
            return there
        known = self._store.get(there * self.planner.capacity + nodes[there])
        return there[differing(known, take(states, there))]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the search to a safetensors file; between rounds, so nothing is waiting."""
        planner = self.planner
        arrays = {**planner.arrays(), **self._store.arrays()}
        note = {
            "format": _FORMAT,
            "method": planner.method,
            "num_simulations": planner.num_simulations,
            "num_actions": planner.num_actions,
            "seed": planner.seed,
            "capacity": planner.capacity,
            "calls": self.calls,
            "options": dataclasses.asdict(planner.options),
            "known": [[root, depth, key, node] for (root, depth, key), node in self._known.items()],
        }
        write_arrays(path, arrays, {"search": json.dumps(note)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], simulator: Simulator) -> Session:
        """Reads a search back; it goes on as if it had never stopped. Damaged files raise `DataError`."""
        arrays, metadata = read_arrays(path, mmap=False, values=_VALUES)
        try:
            note = json_of(metadata["search"].encode("utf-8", "replace"), where=str(path), values=_VALUES)
            if note["format"] != _FORMAT:
                raise DataError(f"{path}: holds {str(note['format'])[:60]!r}; expected {_FORMAT!r}")
            if note["num_actions"] != int(simulator.num_actions):
                raise DataError(
                    f"{path}: has {note['num_actions']!r} actions, the simulator {int(simulator.num_actions)}"
                )
            options = Options(**note["options"])
            if options.outcomes != most_outcomes(simulator):
                raise DataError(
                    f"{path}: has {options.outcomes!r} outcomes of a step, the simulator {most_outcomes(simulator)}"
                )
            size, capacity = len(arrays["root_ids"]), positive("capacity", note["capacity"])
            session = cls.__new__(cls)
            session.simulator, session.calls = simulator, positive("calls", note["calls"])
            session._store = restore(arrays, size * capacity)  # before the trees: there must be a state for each node
            session.planner = Planner.restore(
                {name: array for name, array in arrays.items() if not name.startswith("state")},
                method=str(note["method"]),
                num_simulations=note["num_simulations"],
                num_actions=note["num_actions"],
                capacity=capacity,
                seed=note["seed"],
                options=options,
            )
            trees = session.planner.trees
            used = np.flatnonzero(np.arange(capacity) < trees.size)
            states = session._store.get(used)
            check_range(simulator, states, str(path))
            if not getattr(simulator, "sound", lambda _: True)(states):
                raise ValueError("its states are not of this simulator's world")
            session._known = {(int(r), int(d), _hashable(k)): int(n) for r, d, k, n in note["known"]}
            check_known(session._known, trees, int(trees.size.max()))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: is not a saved search, or damaged ({error})") from error
        return session


def _hashable(key: Any) -> Any:
    return tuple(_hashable(part) for part in key) if isinstance(key, list) else key
