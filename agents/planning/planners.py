"""How planners search a world: by tables on closed token trees, by a simulator elsewhere.

What they are told of it, and what not on held-out roots, is in `treegym.agents.planning.simulators`.

Letters: N nodes, B states, K children, R roots.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from treegym.agents.costs import Costs
from treegym.agents.masking import masked_log_softmax_array
from treegym.agents.planning.doubles import OwnClones, double_of
from treegym.agents.planning.simulators import (
    WHERE,
    CloneSimulator,
    LanesSimulator,
    TreeSimulator,
    rows_at,
    visible_reward,
)
from treegym.agents.planning.tabular import simulator_of, table_of
from treegym.agents.play.foreign_worlds import ListWorld
from treegym.agents.play.native_worlds import LanesWorld
from treegym.agents.play.world import World
from treegym.agents.policies.base import ChildScorer
from treegym.envs.token_tree.world import TreeWorld
from treegym.rewards.sees import Sees
from treegym.search import SearchResult, Session, Simulator, search
from treegym.search.closed import ClosedTree
from treegym.search.settings import make_options
from treegym.search.states import count

__all__ = ["ClosedPlanner", "SimulatorPlanner", "WorldPlanner", "make_planner", "nodes_under"]


class WorldPlanner(ABC):
    """Searches from where the lanes of a world stand, and counts what that costs.

    Every simulation is charged as one forward pass, also where the networks were tabulated beforehand. That saves time,
    which shows in CPU seconds; forward passes say what the same plan would cost where nothing can be looked up.
    """

    told = True  # whether its searches are told what the environment pays at an end

    def __init__(self) -> None:
        self.costs = Costs()
        self.simulator: Simulator | None = None  # the world as it searches it; None until prepared

    def prepare(self, policy: ChildScorer | None, roots: np.ndarray | None = None) -> None:
        """Takes the networks as they are now; `roots` narrows down where searches will be."""
        with self.costs.passing(0):
            self._take(policy, roots)

    @abstractmethod
    def _take(self, policy: ChildScorer | None, roots: np.ndarray | None) -> None:
        """Does what `prepare` says."""

    @abstractmethod
    def states(self, lanes: np.ndarray) -> Any:
        """Returns the states of some lanes of the world the planner was made for."""

    def search(self, states: Any, *, method: str, num_simulations: int, seed: int, **options: Any) -> SearchResult:
        """Plans from each state."""
        assert self.simulator is not None, "prepare comes first"
        with self._charged(num_simulations * count(states)):
            return search(self.simulator, states, method=method, num_simulations=num_simulations, seed=seed, **options)

    def session(self, states: Any, *, method: str, num_simulations: int, seed: int, **options: Any) -> Session:
        """Returns searches from each state that can go on from move to move; `run` and `move` drive them."""
        assert self.simulator is not None, "prepare comes first"
        settings = make_options(options)
        with self._charged(0):
            return Session(
                self.simulator, states, method=method, num_simulations=num_simulations, seed=seed, options=settings
            )

    def run(self, session: Session) -> SearchResult:
        """Spends the simulations of one move."""
        planner = session.planner
        with self._charged(planner.num_simulations * planner.size):
            return session.run()

    def move(self, session: Session, actions: np.ndarray, stay: np.ndarray, states: Any, *, seed: int) -> None:
        """Takes what was found below the moves ``actions [B]`` along, in the searches of ``stay [B] bool``."""
        with self._charged(0):
            session.keep(np.flatnonzero(stay))
            session.advance(np.asarray(actions)[stay], states, seed=seed, strict=False)

    @contextmanager
    def _charged(self, simulations: int) -> Generator[None]:
        verdicts = simulations if self.told else 0
        with self.costs.passing(simulations, simulations=simulations, verdicts=verdicts), self.borrowed():
            yield

    def borrowed(self) -> AbstractContextManager[None]:
        """Guards what `simulator` borrows of the world while it is used."""
        return nullcontext()


class ClosedPlanner(WorldPlanner):
    """Plans on a closed token tree: the networks are tabulated over the nodes, whole searches run in one kernel."""

    def __init__(
        self, world: TreeWorld, lanes: Any = None, *, sees: str = Sees.VALUE, likelihood_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.world, self.sees, self._lanes = world, sees, lanes
        self.told = sees == Sees.VERIFIER
        self.likelihood_weight = likelihood_weight
        size, tables = world.tree.size, world.tables
        self.terminal = tables.ends | tables.cut_off | (tables.child_count == 0)  # [N] bool
        self.reward = visible_reward(world, np.arange(size), sees=sees)  # [N] float32
        self.paid = self.reward.copy()  # [N] float32, with what ends and steps are estimated to be worth
        self.logits = np.zeros(size, np.float32)  # [N], of each node among its siblings
        self.value = np.zeros(size, np.float32)  # [N]
        self.simulator = self.tables = ClosedTree(
            tables.first_child, tables.child_count, self.terminal, self.paid, self.logits, self.value, world.num_actions
        )

    def _take(self, policy: ChildScorer | None, roots: np.ndarray | None) -> None:
        """Tabulates the networks over the trees of `roots` (indices; None: all). Without a policy: prior, value 0."""
        world = self.world
        if policy is None:
            self.logits[:] = world.tree.prior
            return
        nodes = np.arange(world.tree.size) if roots is None else nodes_under(world, roots)
        inner = nodes[~self.terminal[nodes]]
        for part in _chunks(inner, 8192):
            rows = rows_at(world, part, policy)
            logits, values, worth = policy.judge(rows)
            slot = np.arange(logits.shape[1])
            there = slot < world.tables.child_count[part].astype(np.int64)[:, None]
            children = (world.tables.first_child[part].astype(np.int64)[:, None] + slot)[there]
            self.logits[children] = logits[there]
            self.value[part] = values
            if self.sees == Sees.VALUE:
                likely = self.likelihood_weight * masked_log_softmax_array(logits, there)[there]
                ends = np.where(self.terminal[children], worth[there], 0.0)
                self.paid[children] = self.reward[children] + ends + likely

    def search(self, states: Any, *, method: str, num_simulations: int, seed: int, **options: Any) -> SearchResult:
        with self._charged(num_simulations * count(states)):
            return self.tables.search(states, method=method, num_simulations=num_simulations, seed=seed, **options)

    def states(self, lanes: np.ndarray) -> np.ndarray:
        return self._lanes.places(lanes)


class SimulatorPlanner(WorldPlanner):
    """Plans through a `Simulator`, one batched evaluation after the other."""

    def __init__(self, make: Callable[[ChildScorer | None], Simulator], lanes: Callable[[np.ndarray], Any]) -> None:
        super().__init__()
        self._make, self._lanes = make, lanes

    def _take(self, policy: ChildScorer | None, roots: np.ndarray | None) -> None:
        self.simulator = self._make(policy)

    def states(self, lanes: np.ndarray) -> Any:
        return self._lanes(lanes)


def make_planner(
    world: World, *, sees: str = Sees.VALUE, tabulate: bool = True, likelihood_weight: float = 0.0
) -> WorldPlanner | None:
    """Returns a planner for a world, or None if the world can be neither looked up nor copied.

    `sees` and `likelihood_weight` (with `Sees.VALUE`: what a step is paid, times its log-probability under the
    policy) are about token trees. Elsewhere the simulator is a copy of the environment, which pays what it pays:
    comparisons there count the simulations.
    """
    if isinstance(world, LanesWorld):
        inner = world.tree_world
        if inner is None:
            lanes = world.lanes
            return SimulatorPlanner(lambda policy: LanesSimulator(lanes, policy), lanes.places)
        if tabulate and inner.grower is None and inner.table.complete:
            return ClosedPlanner(inner, world.lanes, sees=sees, likelihood_weight=likelihood_weight)
        made = SimulatorPlanner(
            lambda policy: TreeSimulator(inner, policy, sees=sees, likelihood_weight=likelihood_weight),
            world.lanes.places,
        )
        made.told = sees == Sees.VERIFIER
        return made
    if not isinstance(world, ListWorld):
        return None
    table = table_of(world.env)
    if table is not None and all(type(env.unwrapped) is type(world.env.unwrapped) for env in world.envs):
        return SimulatorPlanner(
            lambda policy: simulator_of(table, policy), lambda who: world.observe(who)["observations"].astype(np.int64)
        )
    return _DoublePlanner(world)


class _DoublePlanner(SimulatorPlanner):
    """Plans in a double of single environments; one that is borrowed for it is put back afterwards."""

    def __init__(self, world: ListWorld) -> None:
        double = double_of(world.env)

        def states(who: np.ndarray) -> dict[str, np.ndarray]:
            kept = np.empty(len(who), object)
            for i, lane in enumerate(who.tolist()):
                kept[i] = double.capture(world.envs[lane])
            return {WHERE: kept, **world.observe(who)}

        super().__init__(lambda policy: CloneSimulator(double, world, policy), states)
        self._inner: Any = world.env.unwrapped if isinstance(double, OwnClones) else None

    @contextmanager
    def borrowed(self) -> Generator[None]:
        if self._inner is None:
            yield
            return
        before = self._inner.clone_state()
        try:
            yield
        finally:
            self._inner.restore_state(before)


def nodes_under(world: TreeWorld, roots: np.ndarray) -> np.ndarray:
    """Returns the nodes of some roots' trees ``[.] int64``."""
    wanted = np.zeros(world.tree.num_roots, np.bool_)
    wanted[roots] = True
    return np.flatnonzero(wanted[world.tables.root_index])


def _chunks(array: np.ndarray, size: int) -> list[np.ndarray]:
    return [array[first : first + size] for first in range(0, len(array), size)]
