"""A batch of tree searches under way: ask for leaves, tell their evaluations, read the result at any time."""

from __future__ import annotations

import numpy as np

from treegym.errors import ConfigError
from treegym.search.checks import (
    PROBLEMS,
    as_array,
    check_evaluation,
    check_width,
    positive,
    second_to_play,
    whole_numbers,
)
from treegym.search.kernels import batch, rounds, summary
from treegym.search.kernels.codes import MODE_PLAIN, MODE_RAW, MODE_SORTED
from treegym.search.kernels.walk import Root, Settings
from treegym.search.output import call, new_out, new_roots, root_ids_of, root_noise
from treegym.search.saved import check_room, check_roots, check_trees, depths
from treegym.search.settings import Options, is_plain, kernel_settings, seed_bits
from treegym.search.simulator import Evaluation, SearchResult
from treegym.search.told import SLOT, UNTOLD, Chances, Leaves, Told, Way, checked, join, with_chances
from treegym.search.tree import CHANCE, EMPTY, TERMINAL, Nodes, allocate

__all__ = ["Planner"]

_SHALLOW = 10  # steps that nearly every search goes down
_BELOW = 3  # entries of a path below the deepest node: a move, what it comes to, and one that is never used


class Planner:
    """Plans from B roots at once; world and evaluator stay outside, behind `ask` and `tell`.

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
            num_simulations: simulations per root; sequential halving is planned for this number.
            seed: seeds all noise.
            options: settings of the method.
            root_ids: int [B], names of the roots' random streams; 0 .. B - 1 unless given.
        """
        self.num_simulations = positive("num_simulations", num_simulations)
        logits = as_array("prior_logits", evaluation.prior_logits, np.float32)
        if logits.ndim != 2 or 0 in logits.shape:
            raise ConfigError(f"the roots' prior_logits have shape {logits.shape}; expected [roots, actions]")
        self.num_actions = int(logits.shape[1])
        check_width(self.num_actions)
        self.size = len(logits)
        root = check_evaluation(evaluation, self.size, self.num_actions, "at the roots")
        self.method, self.options, self.seed = method, options or Options(), seed_bits(seed)
        self.root_ids = root_ids_of(root_ids, self.size)
        self.capacity = self._most_new + 1
        self.trees: Nodes = allocate(self.size, self.capacity, self._slots)
        self.roots = new_roots(self.root_ids, self.num_actions)
        self._deepest = 0  # how far below its root a node lies at most
        self._prepare()
        self.plant(np.arange(self.size), root)
        self.start()

    @property
    def _slots(self) -> int:
        return max(self.num_actions, self.options.outcomes)

    @property
    def _most_new(self) -> int:
        """Nodes that a search adds at most: where chance decides, a move and what came of it are two."""
        return self.num_simulations * (2 if self.options.outcomes else 1)

    def _prepare(self) -> None:
        self._scores = np.empty(self._slots, np.float32)
        self._problems = np.zeros(self.size * self.options.leaves, np.int32)

    def plant(self, rows: np.ndarray, evaluation: Evaluation) -> None:
        """Gives the trees of some roots their root node, judged by `evaluation`, and nothing else."""
        given = check_evaluation(evaluation, len(rows), self.num_actions, "at the roots")
        second = second_to_play(given.to_play, len(rows), self.options.players, "at the roots")
        judged = (given.prior_logits, given.value, given.legal)
        batch.plant(self.trees, np.asarray(rows, np.int64), *judged, second, self._mode, self._problems)
        self.raise_problem(len(rows), "root", rows)

    @property
    def _mode(self) -> int:
        ordered = MODE_SORTED if self.options.widen_factor > 0 else MODE_PLAIN
        return ordered | (MODE_RAW if self.method == "similarity" else MODE_PLAIN)

    def start(self) -> None:
        """Sets counters and noise for a search from the roots as they are."""
        self._settle(int(self.trees.seen[:, 0].max()))
        widths = self.trees.width[:, 0]
        noise = root_noise(self.method, self.options, self.seed, self.root_ids, lambda: widths, self.num_actions)
        summary.perturb(self.trees, self.roots, self.seed, noise)

    def _settle(self, carried: int) -> None:
        """Makes the settings and the scratch arrays for trees whose roots come with `carried` visits at most."""
        options = self.options
        self.settings: Settings = kernel_settings(
            self.method,
            options,
            simulations=self.num_simulations,
            visits=self.num_simulations + carried,
            actions=self.num_actions,
            seed=self.seed,
        )
        self.budget = np.full(self.size, self.num_simulations, np.int32)
        most = self.size * options.leaves
        self._way = Way(np.zeros((2, most, 0), np.int32), *(np.zeros(most, np.int32) for _ in range(3)))
        self._make_room()
        self._owners, self.plain = self._way.owners, is_plain(self.settings)
        self._count = np.zeros(1, np.int64)
        self._draws = self.roots.draws.copy()
        self._waiting = 0
        self._buffer: Told | None = None
        self.evaluations = np.zeros(self.size, np.int64)  # [B], evaluations told so far, the root's not counted

    def _make_room(self) -> None:
        """Makes paths long enough for a leaf below the deepest node, twice over: few trees get as deep as they can."""
        longest, paths = self._deepest + _BELOW, self._way.paths
        if paths.shape[2] < longest:
            wider = np.zeros((2, len(self._way.lengths), 2 * longest + _SHALLOW), np.int32)
            wider[:, :, : paths.shape[2]] = paths
            self._way = self._way._replace(paths=wider)

    @property
    def simulations(self) -> int:
        """Simulations that every root has finished."""
        return int(self.roots.done.min())

    def ask(self) -> Leaves:
        """Returns the leaves to evaluate next: none when the budget is spent. They must be told before asking again."""
        if self._waiting:
            raise ConfigError(f"{self._waiting} leaves were asked for and not told yet; tell them first")
        np.copyto(self._draws, self.roots.draws)
        self._make_room()
        most = self.options.leaves
        gather = batch.gather(self.settings.rule, self.plain)
        given = (self.trees, self.roots, self.settings, self.budget, most, self._scores, self._way, self._count)
        call(gather, "planner", *given)
        count = self._waiting = int(self._count[0])
        rows, way = np.arange(count), self._way
        self._deepest = max(self._deepest, int(way.lengths[:count].max(initial=0)) + (self.options.outcomes > 0))
        last = way.lengths[:count] - 1
        owners = self._owners[:count]
        node, slot = way.paths[0, rows, last], way.paths[1, rows, last] & SLOT
        self._buffer = None
        outcomes = np.full(count, -1, np.int32)
        if self.options.outcomes:  # below a move made before, the step is that move's
            made = self.trees.status[owners, node] & CHANCE > 0
            outcomes[made] = slot[made]
            node, slot = way.paths[0, rows, last - made], way.paths[1, rows, last - made] & SLOT
        return Leaves(
            roots=owners.copy(),
            parents=owners.astype(np.int64) * self.capacity + node,
            actions=self.trees.action[owners, node, slot].astype(np.int32),
            depths=way.lengths[:count].copy(),
            outcomes=outcomes,
        )

    def tell(
        self,
        reward: np.ndarray,
        terminated: np.ndarray,
        evaluation: Evaluation | None,
        *,
        leaves: np.ndarray | None = None,
        link: np.ndarray | None = None,
        to_play: np.ndarray | None = None,
        chances: Chances | None = None,
    ) -> np.ndarray:
        """Takes what became of leaves: all of them in the order of `ask`, or some of them in any order.

        The tree changes when the last leaf was told, and always in the order of `ask`.

        Args:
            reward: float [L].
            terminated: bool [L].
            evaluation: a row for each leaf that is neither terminal nor linked (None when there is none).
            leaves: int [L], which leaves these are; all unless given.
            to_play: int [L], with two players: 0 or 1, who is to move next.
            link: int [L], a node of the same tree with the same state and the same reward; else -1.
            chances: where chance decides, the probabilities of the outcomes; then all leaves are told at once.

        Returns:
            int64 [L], the number under which `ask` will name the new state (``root * capacity + node``), -1 where none
            is kept; empty while other leaves are still to be told.
        """
        count = self._waiting if leaves is None else len(leaves)
        second = second_to_play(to_play, count, self.options.players, "below the roots")
        told = checked(count, self._owners, self.num_actions, reward, terminated, second, evaluation, link, self.trees)
        if (chances is None) != (self.options.outcomes == 0) or not (chances is None or leaves is None):
            raise ConfigError("chances are told where steps have outcomes (`Options.outcomes`), of all leaves at once")
        if chances is not None:
            told = with_chances(told, chances, self.trees, self._way)
        if leaves is not None:
            self._buffer = join(self._buffer, self._waiting, np.asarray(leaves), told)
            if (self._buffer.row == UNTOLD).any():
                return np.zeros(0, np.int64)
            told, count, self._buffer = self._buffer, self._waiting, None
        numbers = np.empty(count, np.int64)
        most = self.options.leaves
        call(
            batch.scatter, "planner", self.trees, self.settings, most, self._way, told, self._mode, self._problems,
            numbers,
        )  # fmt: skip
        self._waiting = 0
        charged = told.row >= 0
        owners = self._owners[:count]
        if most == 1:  # no root twice
            self.evaluations[owners] += charged
        else:
            self.evaluations += np.bincount(owners, weights=charged, minlength=self.size).astype(np.int64)
        self.raise_problem(count, "a state below root", self._owners)
        return np.where(numbers < 0, -1, owners.astype(np.int64) * self.capacity + numbers)

    def round(self) -> rounds.Round:
        """Returns what a round reads and writes, for `treegym.search.lean`; `left_off` says how far it came."""
        size = self.size
        none, name = np.zeros(size, np.int32), np.zeros((4, size), np.int64)
        return rounds.Round(
            self.trees, self.roots, self.settings, self._way, self.budget, self._scores, np.zeros(2, np.int64),
            self._problems, self.evaluations, self._draws, name[0], name[1], name[2], np.zeros(size, np.bool_), none,
            np.full(size, EMPTY, np.int32), name[3], np.zeros(1, np.float32), self._mode,
        )  # fmt: skip

    def left_off(self, round_: rounds.Round) -> None:
        """Takes note of the leaves that wait in a round."""
        self._waiting = int(round_.waiting[0])
        self._deepest = max(self._deepest, int(round_.waiting[1]))

    def room_below(self, longest: int) -> tuple[Way, int]:
        """Returns paths with room below the longest way, and for how many rounds that will do: each adds a step."""
        self._deepest = max(self._deepest, longest)
        self._make_room()
        return self._way, self._way.paths.shape[2] - self._deepest - _BELOW + 1

    @property
    def owners(self) -> np.ndarray:
        """The root of each leaf that waits, int32."""
        return self._owners

    def raise_problem(self, count: int, what: str, names: np.ndarray) -> None:
        """Raises what is wrong with the first of so many rows that has something."""
        wrong = np.flatnonzero(self._problems[:count])
        if len(wrong):
            row = int(wrong[0])
            raise ConfigError(f"{what} {int(names[row])} {PROBLEMS[int(self._problems[row])]}")

    def take_back(self) -> None:
        """Forgets the leaves that were asked for, as if they had not been: for an evaluator that failed."""
        batch.take_back(self.trees, self.roots, self.settings, self.options.leaves, self._way, self._waiting)
        taken = np.unique(self._owners[: self._waiting])
        self.roots.draws[taken] = self._draws[taken]  # what was drawn on the way there is drawn again
        self._waiting, self._buffer = 0, None

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Makes the child that a move leads to each root's new root, keeping what is below it.

        Call `plant` for the roots without such a child, then `start`.

        Returns:
            The new number of every old node [B, N], -1 where it is dropped; and the roots that have to be planted.
        """
        kept = self.children(actions)
        return self.keep_below(kept), np.flatnonzero(kept < 0)

    def keep_below(self, kept: np.ndarray) -> np.ndarray:
        """Does what `advance` does for nodes, int32 [B], EMPTY where nothing is to be kept; returns the new numbers."""
        old = self.trees
        most = int(old.size.max())
        self.capacity = most + self._most_new + 1
        self.trees = allocate(self.size, self.capacity, self._slots)
        renumber = np.empty((self.size, old.width.shape[1]), np.int32)
        batch.move_roots(old, self.trees, kept, renumber, np.empty(old.width.shape[1], np.int32))
        self.trees.reward[:, 0] = 0.0
        return renumber

    def children(self, actions: np.ndarray) -> np.ndarray:
        """Returns the node that each root's move leads to, int32 [B], EMPTY where there is none; checks the moves."""
        if self._waiting:
            raise ConfigError(f"{self._waiting} leaves were asked for and not told yet; tell them first")
        moves = whole_numbers("actions", actions, np.int64)
        if moves.shape != (self.size,):
            raise ConfigError(f"actions have shape {moves.shape}; expected {(self.size,)}, one for each root")
        slots = np.arange(self.num_actions)
        there = (slots < self.trees.width[:, :1]) & (self.trees.action[:, 0] == moves[:, None])
        illegal = np.flatnonzero(~there.any(1))
        if len(illegal):
            row = int(illegal[0])
            raise ConfigError(f"action {int(moves[row])} is not legal at root {row}")
        kept: np.ndarray = self.trees.child[np.arange(self.size), 0, there.argmax(1)].copy()
        over = (kept >= 0) & (self.trees.status[np.arange(self.size), np.maximum(kept, 0)] & TERMINAL > 0)
        if over.any():
            raise ConfigError(
                f"the move at root {int(np.flatnonzero(over)[0])} ends the episode: nothing to plan there"
            )
        return kept

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns everything that changes, for saving: trees cut to the nodes in use."""
        if self._waiting:
            raise ConfigError(f"{self._waiting} leaves were asked for and not told yet; tell them first")
        used = int(self.trees.size.max())
        named = {name: array[:, :used] for name, array in zip(Nodes._fields, self.trees, strict=True)}
        named = {f"tree.{name}": np.ascontiguousarray(array) for name, array in named.items()}
        named |= {f"root.{name}": array for name, array in zip(Root._fields, self.roots, strict=True)}
        return named | {"budget": self.budget, "evaluations": self.evaluations, "root_ids": self.root_ids}

    @classmethod
    def restore(
        cls,
        arrays: dict[str, np.ndarray],
        *,
        method: str,
        num_simulations: int,
        num_actions: int,
        capacity: int,
        seed: int,
        options: Options,
    ) -> Planner:
        """Returns the planner that `arrays` were taken from; raises ValueError for arrays no search can have."""
        planner = cls.__new__(cls)
        planner.method, planner.options, planner.seed = method, options, seed_bits(seed)
        planner.num_simulations, planner.num_actions, planner.capacity = num_simulations, num_actions, capacity
        planner.root_ids = arrays["root_ids"].copy()
        planner.size = len(planner.root_ids)
        check_room(capacity, num_simulations, options)
        planner.trees, planner.roots = (
            allocate(planner.size, capacity, planner._slots),
            new_roots(planner.root_ids, num_actions),
        )
        sizes = arrays["tree.size"]
        if sizes.shape != (planner.size, 1) or not ((sizes >= 1) & (sizes <= capacity)).all():
            raise ValueError("its trees are larger than their room")
        used = int(sizes.max())
        for prefix, group in (("tree", planner.trees), ("root", planner.roots)):
            for name, array in zip(group._fields, group, strict=True):
                saved = arrays[f"{prefix}.{name}"]
                room = array[:, :used] if prefix == "tree" and name != "size" else array
                if saved.dtype != array.dtype or saved.shape != room.shape:
                    raise ValueError(f"its array {prefix}.{name} has shape {saved.shape} of {saved.dtype}")
                room[...] = saved
        check_trees(planner.trees, used, num_actions, raw=planner._mode & MODE_RAW > 0)
        carried = check_roots(planner.trees, planner.roots, num_simulations, arrays)
        planner._deepest = int(depths(planner.trees, used).max())
        planner._prepare()
        planner._settle(carried + 1)
        planner.budget[:] = arrays["budget"]
        planner.evaluations[:] = arrays["evaluations"]
        return planner

    def result(self) -> SearchResult:
        """Returns what the search has found so far; may be called at any time between `tell` and `ask`."""
        out = new_out(self.size, self.num_actions)
        summary.summarise(self.trees, self.roots, self.settings, float(self.options.temperature), self._scores, out)
        out.evaluations[:] = self.evaluations
        return out.result()
