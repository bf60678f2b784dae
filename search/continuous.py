"""Searches from many roots against an evaluator that is slow, far away, and answers in any order.

A `Session` evaluates all roots in one batch and waits for the slowest. Here every root goes at its own pace: `ask`
never waits for another one, evaluations may be told in any order, one that failed or took too long is asked for again,
and a root that is done gives its place to the next in the queue. Each root's result depends on its number, the seed and
its evaluations alone; it is what a `Session` with the same ``root_ids`` finds.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np

from treegym.checks import number, whole
from treegym.errors import ConfigError
from treegym.search.checks import check_evaluation, positive, stepped
from treegym.search.planner import Planner
from treegym.search.settings import Options
from treegym.search.simulator import Evaluation, SearchResult, Simulator, Transition
from treegym.search.states import StateStore, count, joined, take

__all__ = ["Continuous", "Request", "drive"]


class Request(NamedTuple):
    """A state that waits for its evaluation."""

    ticket: int  # what to tell the evaluation under
    root: int  # whose search it belongs to
    states: Any  # one row, in the simulator's form
    attempt: int  # 1 for the first time


class _Leaf(NamedTuple):
    root: _Root
    row: int  # of the round's leaves; -1 for the root itself
    states: Any
    attempt: int
    since: float


class _Root:
    """One search."""

    def __init__(self, name: int, states: Any, simulations: int, seconds: float, cost: float) -> None:
        self.name, self.states, self.simulations, self.cost_left = name, states, simulations, cost
        self.seconds, self.end = seconds, math.inf
        self.planner: Planner | None = None
        self.store: StateStore | None = None
        self.moved: Transition | None = None  # the round that waits for its evaluations
        self.move, self.since = -1, 0  # the move it would play, and the simulations since it was another


class Continuous:
    """Plans from a queue of roots, `places` of them at a time."""

    def __init__(
        self,
        simulator: Simulator,
        *,
        num_simulations: int,
        method: str = "gumbel",
        places: int = 8,
        seed: int = 0,
        options: Options | None = None,
        attempts: int = 3,
        deadline: float | None = None,
        settled: int | None = None,
    ) -> None:
        """Begins with an empty queue; `add` fills it. The simulator's `step` is called here, its `expand` never.

        Args:
            simulator: the world; see `treegym.search.simulator.Simulator`.
            num_simulations: simulations per root at most.
            method: a tree method.
            places: roots that are searched at a time.
            seed: seeds all noise.
            options: settings of the method; `transpositions` are not for here.
            attempts: how often an evaluation is asked for before its root is given up, with what it has.
            deadline: seconds after which an evaluation counts as failed, and is ignored if it comes yet.
            settled: a root is done early once its move has been the same for so many simulations.
        """
        self.simulator, self.method, self.seed = simulator, method, seed
        self.num_simulations, self.places = positive("num_simulations", num_simulations), positive("places", places)
        self.options, self.attempts = options or Options(), positive("attempts", attempts)
        if self.options.transpositions:
            raise ConfigError("transpositions join states of one round; here evaluations come one by one")
        self.deadline = math.inf if deadline is None else number("deadline", deadline, low=0.0)
        self.settled = math.inf if settled is None else whole("settled", settled, low=1)
        self.results: dict[int, SearchResult | None] = {}  # None for a root that was never judged
        self.failures: dict[int, str] = {}  # roots that were given up, and why
        self._queue: deque[_Root] = deque()
        self._active: dict[int, _Root] = {}
        self._ready: deque[_Leaf] = deque()
        self._out: dict[int, _Leaf] = {}  # by ticket
        self._tickets = self._added = 0

    def add(
        self,
        states: Any,
        *,
        simulations: int | None = None,
        seconds: float | None = None,
        cost: float | None = None,
    ) -> list[int]:
        """Puts roots at the end of the queue; returns their numbers.

        Args:
            states: states, one row per root.
            simulations: for each of these roots, fewer than `num_simulations`.
            seconds: from when a root gets its place.
            cost: as the evaluations are told to cost, such as tokens; the last one may go beyond it.
        """
        most = self.num_simulations
        most = most if simulations is None else whole("simulations", simulations, low=1, high=most)
        limits = [math.inf if given is None else number(n, given, low=0.0) for n, given in
                  (("seconds", seconds), ("cost", cost))]  # fmt: skip
        names = list(range(self._added, self._added + count(states)))
        for row, name in enumerate(names):
            self._queue.append(_Root(name, take(states, np.array([row])), most, *limits))
        self._added += len(names)
        return names

    @property
    def done(self) -> bool:
        """Whether every root has a result."""
        return len(self.results) == self._added

    @property
    def waiting(self) -> frozenset[int]:
        """The tickets that have not been told."""
        return frozenset(self._out)

    def ask(self, limit: int | None = None) -> list[Request]:
        """Returns at most so many states to evaluate that nobody was asked for yet; none where all are under way."""
        now = time.monotonic()
        for ticket in [t for t, leaf in self._out.items() if now - leaf.since > self.deadline]:
            self.fail(ticket, f"no answer within {self.deadline} seconds")
        requests: list[Request] = []
        while limit is None or len(requests) < limit:
            if not self._ready and not self._fill(now):
                break
            leaf = self._ready.popleft()
            self._tickets += 1
            self._out[self._tickets] = leaf._replace(since=now)
            requests.append(Request(self._tickets, leaf.root.name, leaf.states, leaf.attempt))
        return requests

    def _fill(self, now: float) -> bool:
        """Finds states to evaluate: of roots whose last round is told, and of the next in the queue."""
        while not self._ready:
            idle = [root for root in self._active.values() if root.planner is not None and root.moved is None]
            for root in idle:
                self._round(root, now)
            while self._queue and len(self._active) < self.places:
                root = self._queue.popleft()
                self._active[root.name], root.end = root, now + root.seconds
                self._ready.append(_Leaf(root, -1, root.states, 1, now))
            if not self._ready and not (self._queue and len(self._active) < self.places):
                return False
        return True

    def _round(self, root: _Root, now: float) -> None:
        """Goes down a root's tree until some leaves need an evaluation, or the root is done."""
        planner, store = root.planner, root.store
        assert planner is not None
        assert store is not None
        while root.moved is None:
            if now >= root.end or root.cost_left <= 0 or self._is_settled(root):
                return self._finish(root)
            leaves = planner.ask()
            if not len(leaves.roots):
                return self._finish(root)
            moved = root.moved = stepped(self.simulator, store.get(leaves.parents), leaves.actions)
            ended = np.flatnonzero(moved.terminated)
            if len(ended):
                self._tell(root, ended, None)
            for row in np.flatnonzero(~moved.terminated).tolist():
                self._ready.append(_Leaf(root, row, take(moved.states, np.array([row])), 1, now))
        return None

    def _is_settled(self, root: _Root) -> bool:
        planner = root.planner
        assert planner is not None
        done = planner.simulations
        if self.settled == math.inf or not done:
            return False
        move = int(planner.result().action[0])
        if move != root.move:
            root.move, root.since = move, done
        return done - root.since >= self.settled

    def tell(self, ticket: int, evaluation: Evaluation, *, cost: float = 0.0) -> bool:
        """Takes the evaluation of one state, one row; returns False for a ticket that is no longer waited for."""
        leaf = self._out.get(ticket)
        if leaf is None:
            return False
        root = leaf.root
        actions = int(self.simulator.num_actions)
        check_evaluation(evaluation, 1, actions, f"ticket {ticket}, of root {root.name}")
        if leaf.row < 0:
            root.planner = Planner(
                evaluation, method=self.method, num_simulations=root.simulations, seed=self.seed,
                options=self.options, root_ids=np.array([root.name]),
            )  # fmt: skip
            root.store = StateStore(root.states, root.planner.capacity)
            root.store.put(np.array([0]), root.states)
        else:
            self._tell(root, np.array([leaf.row]), evaluation)
        root.cost_left -= number("cost", cost, low=0.0)
        del self._out[ticket]
        return True

    def _tell(self, root: _Root, rows: np.ndarray, evaluation: Evaluation | None) -> None:
        planner, moved = root.planner, root.moved
        assert planner is not None
        assert moved is not None
        turn = None if moved.to_play is None else np.asarray(moved.to_play)[rows]
        numbers = planner.tell(moved.reward[rows], moved.terminated[rows], evaluation, leaves=rows, to_play=turn)
        if len(numbers):  # the last of the round
            assert root.store is not None
            root.store.put(numbers, moved.states)
            root.moved = None

    def fail(self, ticket: int, why: str = "the evaluation failed") -> None:
        """Puts a state back to be asked for again; after too many attempts its root ends with what it has found."""
        leaf = self._out.pop(ticket, None)
        if leaf is None:
            return
        if leaf.attempt >= self.attempts:
            self.failures[leaf.root.name] = f"{why} ({leaf.attempt} attempts)"
            self.cancel(leaf.root.name)
        else:
            self._ready.appendleft(leaf._replace(attempt=leaf.attempt + 1))

    def cancel(self, name: int) -> None:
        """Ends a root now, with what it has found; its evaluations under way are ignored when they come."""
        if name in self.results:
            return
        root = self._active.get(name)
        if root is None:
            self._queue = deque(waiting for waiting in self._queue if waiting.name != name)
            self.results[name] = None
            return
        self._ready = deque(leaf for leaf in self._ready if leaf.root is not root)
        self._out = {ticket: leaf for ticket, leaf in self._out.items() if leaf.root is not root}
        if root.moved is not None and root.planner is not None:
            root.planner.take_back()
        self._finish(root)

    def _finish(self, root: _Root) -> None:
        del self._active[root.name]
        self.results[root.name] = None if root.planner is None else root.planner.result()


async def drive(
    search: Continuous,
    evaluate: Callable[[Any], Awaitable[Evaluation | tuple[Evaluation, float]]],
    *,
    concurrency: int = 32,
    together: int = 1,
) -> dict[int, SearchResult | None]:
    """Runs searches to their ends with an evaluator that is awaited, such as a client of a model server.

    Args:
        search: the searches, their roots added (more may be added while it runs).
        evaluate: given states (as many rows as come together), returns their evaluations, or these and what they cost.
        concurrency: calls of `evaluate` under way at a time.
        together: states that one call is given at most; those that are there go at once, nobody waits for more.
    """
    concurrency, together = positive("concurrency", concurrency), positive("together", together)
    tasks: dict[asyncio.Task[Any], list[int]] = {}
    try:
        while True:
            while len(tasks) < concurrency and (requests := search.ask(together)):
                states = joined([request.states for request in requests])
                tasks[asyncio.ensure_future(_awaited(evaluate, states))] = [request.ticket for request in requests]
            if not tasks:
                return search.results
            wait = None if math.isinf(search.deadline) else search.deadline
            done, _ = await asyncio.wait(tasks, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                tickets, error = tasks.pop(task), task.exception()
                if isinstance(error, ConfigError):
                    raise error
                if error is None:
                    _told(search, tickets, task.result())
                else:
                    for ticket in tickets:
                        search.fail(ticket, f"{type(error).__name__}: {error}")
            waiting = search.waiting
            for task, tickets in list(tasks.items()):
                if waiting.isdisjoint(tickets):  # their roots are done, or it took too long
                    task.cancel()
                    del tasks[task]
    finally:
        for task in tasks:
            task.cancel()


def _told(search: Continuous, tickets: list[int], given: Any) -> None:
    """Tells each state of a call its own row."""
    evaluation, cost = given if not hasattr(given, "prior_logits") else (given, 0.0)
    if len(tickets) == 1:
        search.tell(tickets[0], evaluation, cost=cost)
        return
    rows = len(np.asarray(evaluation.value))
    if rows != len(tickets):
        raise ConfigError(f"the evaluator judged {rows} states and was asked for {len(tickets)}")
    for row, ticket in enumerate(tickets):
        one = [None if part is None else part[row : row + 1] for part in evaluation]
        search.tell(ticket, Evaluation._make(one), cost=cost / rows)


async def _awaited(evaluate: Callable[[Any], Awaitable[Any]], states: Any) -> Any:
    return await evaluate(states)
