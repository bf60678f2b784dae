"""A batch of tree searches under way: ask for leaves, tell their evaluations, read the result at any time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from treegym.errors import ConfigError
from treegym.search.base import Evaluation, SearchResult
from treegym.search.kernels import batch, summary
from treegym.search.kernels.walk import Root, Settings
from treegym.search.output import root_ids_of, root_noise
from treegym.search.settings import Options, kernel_settings
from treegym.search.tree import Nodes, allocate

__all__ = ["PROBLEMS", "Leaves", "Planner", "check_evaluation", "new_roots"]

PROBLEMS = {
    1: "has no legal action",
    2: "has a prior logit that is NaN or +inf",
    3: "has prior logits of -inf for all its legal actions",
    4: "has a reward or value that is not finite",
}


class Leaves(NamedTuple):
    """Leaves that wait for the world and the evaluator: step ``parents`` by ``actions``, judge what comes out."""

    roots: np.ndarray  # [L] int32, row of the batch the leaf belongs to
    parents: np.ndarray  # [L] int64, number of the parent's state: root * capacity + node
    actions: np.ndarray  # [L] int32
    nodes: np.ndarray  # [L] int64, number under which the new state will be asked for


def check_evaluation(evaluation: Evaluation, rows: int, actions: int, what: str) -> Evaluation:
    """Returns the evaluation as contiguous arrays, or raises `ConfigError` naming the array and the row at fault."""
    logits = np.ascontiguousarray(evaluation.prior_logits, np.float32)
    value = np.ascontiguousarray(evaluation.value, np.float32)
    legal = np.ascontiguousarray(evaluation.legal, np.bool_)
    for name, array, shape in (
        ("prior_logits", logits, (rows, actions)),
        ("value", value, (rows,)),
        ("legal", legal, (rows, actions)),
    ):
        if array.shape != shape:
            raise ConfigError(f"{what}: the simulator's {name} has shape {array.shape}; expected {shape}")
    if not np.isfinite(value).all():
        row = int(np.flatnonzero(~np.isfinite(value))[0])
        raise ConfigError(f"{what}: the simulator's value of row {row} is {value[row]}; it must be finite")
    return Evaluation(logits, value, legal)


class Planner:
    """Plans from B roots at once. `ask` and `tell` keep world and evaluator outside; `treegym.search.search` drives both.

    The result depends on the seed, `root_ids` and the evaluations alone: not on how a batch is split, nor on the order
    in which evaluations arrive.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        method: str,
        num_simulations: int,
        seed: int = 0,
        options: Options | None = None,
        root_ids: np.ndarray | None = None,
    ) -> None:
        """Makes the trees of ``len(evaluation.value)`` roots, judged already by the evaluator.

        Args:
            evaluation: prior logits [B, A], value [B] and legal mask [B, A] of the roots.
            method: one of `treegym.search.settings.TREE_RULES`.
            num_simulations: simulations a root; sequential halving is planned for this number.
            seed: seeds all noise.
            options: settings of the method.
            root_ids: int [B], names of the roots' random streams; 0 .. B - 1 unless given.
        """
        if num_simulations < 1:
            raise ConfigError(f"num_simulations is {num_simulations}; it must be at least 1")
        logits = np.asarray(evaluation.prior_logits)
        if logits.ndim != 2 or 0 in logits.shape:
            raise ConfigError(f"the roots' prior_logits have shape {logits.shape}; expected [roots, actions]")
        self.num_actions = int(logits.shape[1])
        if self.num_actions > np.iinfo(np.int16).max:
            raise ConfigError(f"{self.num_actions} actions; a search tree holds at most {np.iinfo(np.int16).max}")
        self.size = len(logits)
        root = check_evaluation(evaluation, self.size, self.num_actions, "at the roots")
        self.method, self.options, self.seed = method, options or Options(), int(seed)
        self.num_simulations = int(num_simulations)
        self.root_ids = root_ids_of(root_ids, self.size)
        self.capacity = self.num_simulations + 1
        self.trees: Nodes = allocate(self.size, self.capacity, self.num_actions)
        self.roots = new_roots(self.root_ids, self.num_actions)
        self._scores = np.empty(self.num_actions, np.float32)
        self._problems = np.zeros(self.size * self.options.leaves, np.int32)
        batch.plant(self.trees, root.prior_logits, root.value, root.legal, self._sorted, self._problems)
        self._raise_problem(self.size, "root", np.arange(self.size))
        self._start()

    @property
    def _sorted(self) -> bool:
        return self.options.widen_factor > 0

    def _start(self) -> None:
        """Sets counters and noise for a search from the roots as they are."""
        options = self.options
        carried = int(self.trees.count[:, 0].max())
        self.settings: Settings = kernel_settings(
            self.method,
            options,
            simulations=self.num_simulations,
            visits=self.num_simulations + carried,
            seed=self.seed,
        )
        noise = root_noise(self.method, options, self.seed, self.root_ids, self.trees.width[:, 0], self.num_actions)
        summary.perturb(self.trees, self.roots, self.seed, noise)
        self.budget = np.full(self.size, self.num_simulations, np.int32)
        most = self.size * options.leaves
        depth = min(self.capacity, options.max_depth or self.capacity) + 1
        self._paths = np.zeros((2, most, depth), np.int32)
        self._lengths = np.zeros(most, np.int32)
        self._owners = np.zeros(most, np.int32)
        self._waiting = 0
        self.evaluations = np.zeros(self.size, np.int64)  # [B], evaluations told so far, the root's not counted

    @property
    def simulations(self) -> int:
        """Simulations that every root has finished."""
        return int(self.roots.done.min())

    def ask(self) -> Leaves:
        """Returns the leaves to evaluate next: none when the budget is spent. They must be told before asking again."""
        if self._waiting:
            raise ConfigError(f"{self._waiting} leaves were asked for and not told yet; tell them first")
        count = self._waiting = batch.gather(self.settings.rule)(
            self.trees,
            self.roots,
            self.settings,
            self.budget,
            self.options.leaves,
            self._scores,
            self._paths,
            self._lengths,
            self._owners,
        )
        rows = np.arange(count)
        last = self._lengths[:count] - 1
        owners = self._owners[:count]
        node, slot = self._paths[0, rows, last], self._paths[1, rows, last]
        base = owners.astype(np.int64) * self.capacity
        before = np.zeros(count, np.int64)  # how many leaves of the same root stand before this one
        if self.options.leaves > 1 and count:
            first = np.r_[True, owners[1:] != owners[:-1]]
            before = rows - np.maximum.accumulate(np.where(first, rows, 0))
        return Leaves(
            roots=owners.copy(),
            parents=base + node,
            actions=self.trees.action[owners, node, slot].astype(np.int32),
            nodes=base + self.trees.size[owners, 0] + before,
        )

    def tell(self, reward: np.ndarray, terminated: np.ndarray, evaluation: Evaluation | None) -> None:
        """Takes what became of all leaves asked for: rows in the order of `ask`; `evaluation` has a row for each leaf
        that is not terminal (None when all are)."""
        count = self._waiting
        reward = np.ascontiguousarray(reward, np.float32)
        terminated = np.ascontiguousarray(terminated, np.bool_)
        for name, array in (("reward", reward), ("terminated", terminated)):
            if array.shape != (count,):
                raise ConfigError(f"the simulator's {name} has shape {array.shape}; expected {(count,)}")
        if not np.isfinite(reward).all():
            row = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise ConfigError(
                f"the reward of leaf {row} (root {self._owners[row]}) is {reward[row]}; it must be finite"
            )
        alive = ~terminated
        judged = int(alive.sum())
        if judged and evaluation is None:
            raise ConfigError(f"{judged} leaves are not terminal and were told without an evaluation")
        rows = np.cumsum(alive) - 1
        rows[terminated] = -1
        if evaluation is None:
            shape = (1, self.num_actions)
            evaluation = Evaluation(np.zeros(shape, np.float32), np.zeros(1, np.float32), np.ones(shape, np.bool_))
        else:
            evaluation = check_evaluation(evaluation, judged, self.num_actions, "below the roots")
        batch.scatter(
            self.trees,
            self.settings,
            self.options.leaves,
            self._paths,
            self._lengths,
            self._owners,
            count,
            reward,
            terminated,
            rows,
            *evaluation,
            self._sorted,
            self._problems,
        )
        self._waiting = 0
        self.evaluations += np.bincount(self._owners[:count], weights=alive, minlength=self.size).astype(np.int64)
        self._raise_problem(count, "a state below root", self._owners)

    def _raise_problem(self, count: int, what: str, names: np.ndarray) -> None:
        wrong = np.flatnonzero(self._problems[:count])
        if len(wrong):
            row = int(wrong[0])
            raise ConfigError(f"{what} {int(names[row])} {PROBLEMS[int(self._problems[row])]}")

    def result(self) -> SearchResult:
        """Returns what the search has found so far; may be called at any time between `tell` and `ask`."""
        shape = (self.size, self.num_actions)
        action = np.zeros(self.size, np.int32)
        policy = np.zeros(shape, np.float32)
        visits = np.zeros(shape, np.int32)
        q = np.full(shape, np.nan, np.float32)
        value = np.zeros(self.size, np.float32)
        summary.summarise(
            self.trees,
            self.roots,
            self.settings,
            float(self.options.temperature),
            self._scores,
            action,
            policy,
            visits,
            q,
            value,
        )
        return SearchResult(action, policy, visits, q, value, int(self.evaluations.max(initial=0)))


def new_roots(ids: np.ndarray, slots: int) -> Root:
    size = len(ids)
    return Root(
        done=np.zeros((size, 1), np.int32),
        noisy=np.zeros((size, slots), np.float32),
        before=np.zeros((size, slots), np.int32),
        stream=np.ascontiguousarray(ids.reshape(size, 1)),
        draws=np.full((size, 1), 1 << 20, np.int64),
    )
