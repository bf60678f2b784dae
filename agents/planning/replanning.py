"""Search that goes on from move to move: what was found below the move that is played is kept.

Lanes whose episode ends leave; the others' trees are taken along. Letters: B lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.search import Planner, SearchResult, Simulator
from treegym.search.settings import make_options
from treegym.search.states import StateStore, count, take

__all__ = ["Replanning"]


class Replanning:
    """The searches of B lanes that make their moves together.

    Args:
        simulator: the world; its states must be such as `StateStore` keeps.
        states: where the lanes stand.
        method: a tree method of `treegym.search`.
        num_simulations: simulations a move, on top of what was kept.
        seed: seeds the noise of the first move.
        **options: settings of the method.
    """

    def __init__(
        self, simulator: Simulator, states: Any, *, method: str, num_simulations: int, seed: int, **options: Any
    ) -> None:
        self.simulator, self.method, self.options = simulator, method, make_options(options)
        self.planner = Planner(
            simulator.expand(states), method=method, num_simulations=num_simulations, seed=seed, options=self.options
        )
        self._states = StateStore(states, self.planner.size * self.planner.capacity)
        self._states.put(np.arange(count(states), dtype=np.int64) * self.planner.capacity, states)

    def search(self) -> SearchResult:
        """Spends the simulations of one move."""
        while len((leaves := self.planner.ask()).roots):
            moved = self.simulator.step(self._states.get(leaves.parents), leaves.actions)
            terminated = np.ascontiguousarray(moved.terminated, np.bool_)
            alive = np.flatnonzero(~terminated)
            judged = self.simulator.expand(take(moved.states, alive)) if len(alive) else None
            numbers = self.planner.tell(moved.reward, terminated, judged)
            kept = np.flatnonzero(numbers >= 0)
            self._states.put(numbers[kept], take(moved.states, kept))
        return self.planner.result()

    def play(self, actions: np.ndarray, stay: np.ndarray, states: Any, *, seed: int) -> np.ndarray:
        """Moves on; returns how many visits each lane that stays brought along ``[b] int64``.

        Args:
            actions: ``[B] int``, the moves played.
            stay: ``[B] bool``, lanes whose episode goes on.
            states: where those lanes stand now.
            seed: seeds the noise of the next move.
        """
        if not stay.any():
            return np.zeros(0, np.int64)
        self._keep(np.flatnonzero(stay))
        planner = self.planner
        before = planner.capacity
        renumber, fresh = planner.advance(np.asarray(actions)[stay])
        old, self._states = self._states, StateStore(states, planner.size * planner.capacity)
        root, node = np.nonzero(renumber >= 0)
        self._states.put(root * planner.capacity + renumber[root, node], old.get(root * before + node))
        self._states.put(np.arange(planner.size, dtype=np.int64) * planner.capacity, states)
        if len(fresh):
            planner.plant(fresh, self.simulator.expand(take(states, fresh)))
        planner.seed = seed
        planner.start()
        return planner.roots.before.sum(1, dtype=np.int64)

    def _keep(self, lanes: np.ndarray) -> None:
        """Goes on with some of the lanes."""
        old = self.planner
        if len(lanes) == old.size:
            return
        rows = (lanes[:, None] * old.capacity + np.arange(old.capacity)).reshape(-1)
        kept = self._states.get(rows)
        self._states = StateStore(kept, len(rows))
        self._states.put(np.arange(len(rows)), kept)
        arrays = {name: array[lanes] for name, array in old.arrays().items()}
        used = int(arrays["tree.size"].max())  # the largest tree may have left
        for name in arrays:
            if name.startswith("tree.") and name != "tree.size":
                arrays[name] = arrays[name][:, :used]
        self.planner = Planner.restore(
            arrays,
            method=self.method,
            num_simulations=old.num_simulations,
            num_actions=old.num_actions,
            capacity=old.capacity,
            seed=old.seed,
            options=self.options,
        )
