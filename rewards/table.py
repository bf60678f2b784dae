"""RewardTable: a reward evaluated on a tree, once per node, as arrays that an environment indexes while stepping."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from treegym.errors import BackendError, ConfigError, DataError, RewardError, TreeGymError
from treegym.rewards.base import Part, Request, Scored, Term
from treegym.tree.paths import ancestors, distinct, flagged_ends, path_sums
from treegym.tree.token_tree import TokenTree

__all__ = ["FAILED", "INAPPLICABLE", "PENDING", "SCORED", "Ends", "RewardTable"]

Ends = np.ndarray | Callable[[np.ndarray], np.ndarray]  # bool [N], or nodes [B] -> bool [B] for growing trees

# Status of one term at one node.
PENDING = 0  # not evaluated yet; the value is NaN
SCORED = 1
INAPPLICABLE = 2  # not asked there (no end, a root, behind a closed gate); the value is 0
FAILED = 3  # masked (the value is NaN) or defaulted (the value is the default)


class RewardTable:
    """The arrays of one reward on one tree (N nodes, T terms).

    Attributes:
        names: T term names, in order.
        deployable: bool [T], which of them planners may be told.
        weights: float64 [T], each term's share of the reward (the product of the weights above it).
        complete: true when nothing is left to evaluate, so that `ensure` need not be called.
    """

    def __init__(
        self,
        part: Part,
        source: TokenTree,
        *,
        unshaped: Part,
        ends: Ends | None = None,
        truncated: Ends | None = None,
    ) -> None:
        """Evaluates a part on a tree; `unshaped` is what is left of it without shaping. See `Reward.on`."""
        for what, given in (("ends", ends), ("truncated", truncated)):
            if given is not None and not callable(given):
                _check_flags(np.asarray(given), what, source.size)
        self.source = source
        self._ends, self._truncated = ends, truncated
        self._part, self._unshaped = part, unshaped
        self._leaves = part.terms()
        self.names = tuple(term.name for term in self._leaves)
        self.deployable = np.array([term.deployable for term in self._leaves], bool)  # [T]
        shares = part.weights(1.0)
        self.weights = np.array([shares[name] for name in self.names])  # [T] float64
        self.progress = 0.0
        self._column = {id(term): i for i, term in enumerate(self._leaves)}
        self._size = 0
        self._terms = np.zeros((0, len(self.names)), np.float32)  # [capacity, T]
        self._status = np.zeros((0, len(self.names)), np.uint8)  # [capacity, T]
        self._total = np.zeros(0)  # [capacity] float64, NaN while pending
        self._flagged = np.zeros(0, bool)  # [capacity], a term of this node failed
        self.failures: dict[str, int] = dict.fromkeys(self.names, 0)
        self.complete = False
        self._grow()

    @property
    def total(self) -> np.ndarray:
        """Reward credited on entering each node, ``[N] float64``; NaN where `ensure` was not called yet."""
        return self._total[: self._size]

    @property
    def terms(self) -> np.ndarray:
        """Each term's raw value on entering each node, ``[N, T] float32``; NaN while pending and where masked."""
        return self._terms[: self._size]

    @property
    def status(self) -> np.ndarray:
        """How each term stands at each node, ``[N, T] uint8``: PENDING, SCORED, INAPPLICABLE or FAILED."""
        return self._status[: self._size]

    @property
    def failed(self) -> np.ndarray:
        """Nodes at which a term failed (or a composition is unknown) under "mask" or "default", ``[N] bool``."""
        return self._flagged[: self._size]

    def ends(self, nodes: np.ndarray) -> np.ndarray:
        """Returns which nodes end the episode (really or by detection), ``[B] bool``."""
        return _look_up(self._ends, nodes, self.source, flagged_ends)

    def truncated(self, nodes: np.ndarray) -> np.ndarray:
        """Returns which nodes the budget cuts off, ``[B] bool``."""
        return _look_up(self._truncated, nodes, self.source, lambda _, asked: np.zeros(len(asked), bool))

    def ensure(self, nodes: np.ndarray) -> None:
        """Evaluates what is still pending at `nodes`; a no-op on a complete table. Grows with the tree."""
        if self.complete and self.source.size == self._size:
            return
        if self.source.size > self._size:
            self._grow()
        wanted = distinct(np.asarray(nodes, dtype=np.int64))
        wanted = wanted[np.isnan(self._total[wanted])]
        if wanted.size:
            self._total[wanted] = self._credit(wanted)

    def column(self, term: Term, nodes: np.ndarray) -> np.ndarray:
        """Returns one term's raw values at nodes, evaluating those still pending; ``[B] float32``."""
        column = self._column[id(term)]
        pending = nodes[self._status[nodes, column] == PENDING]
        if pending.size:
            self._evaluate(term, column, distinct(pending))
        return self._terms[nodes, column]

    def returns(self, part: Part, nodes: np.ndarray, *, leave_out: bool = False) -> np.ndarray:
        """Returns a part's increments summed from the root down to each node, ``[B] float64``.

        One that is unknown makes the sum unknown (NaN); or is left out of it, unless nothing else is there.
        """
        if part.pays_at_end:
            return part.increments(self, nodes)
        above = ancestors(self.source, nodes)
        steps = part.increments(self, above)
        at = np.searchsorted(above, nodes)
        lost = np.isnan(steps)
        if not leave_out or not lost.any():
            return path_sums(self.source, above, steps)[at]
        total = path_sums(self.source, above, np.where(lost, 0.0, steps))[at]
        missing = path_sums(self.source, above, lost.astype(np.float64))[at]
        return np.where(missing == np.asarray(self.source.depth)[nodes], np.nan, total)

    def unskip(self, part: Part, nodes: np.ndarray) -> None:
        """Lets a part's terms be asked again where they were not (a gate that was closed is open now)."""
        for term in part.terms():
            column = self._column[id(term)]
            again = nodes[self._status[nodes, column] == INAPPLICABLE]
            self._status[again, column] = PENDING

    def skip(self, part: Part, nodes: np.ndarray) -> None:
        """Marks a part's terms as not asked at nodes (behind a closed gate)."""
        for term in part.terms():
            column = self._column[id(term)]
            pending = nodes[self._status[nodes, column] == PENDING]
            self._terms[pending, column] = 0.0
            self._status[pending, column] = INAPPLICABLE

    def raw(self, nodes: np.ndarray) -> np.ndarray:
        """Returns the reward without shaping terms, ``[B] float64``: what evaluations report."""
        self.ensure(nodes)
        credit = self._unshaped.increments(self, np.asarray(nodes, dtype=np.int64))
        return np.nan_to_num(credit, nan=0.0)

    def visible(self, nodes: np.ndarray) -> np.ndarray:
        """Returns what a planner without the verdict is told that entering nodes pays, ``[B] float32``.

        The weighted sum of the deployable terms: where a composition mixes them otherwise, this is what can be told
        without knowing the rest.
        """
        self.ensure(nodes)
        columns = np.flatnonzero(self.deployable & (self.weights != 0))
        if not len(columns):
            return np.zeros(len(nodes), np.float32)
        return (self.vector(nodes)[:, columns] @ self.weights[columns]).astype(np.float32)

    def vector(self, nodes: np.ndarray) -> np.ndarray:
        """Returns the terms at nodes as a finite array ``[B, T] float32`` (a masked failure is 0; see `failed`)."""
        self.ensure(nodes)
        return np.nan_to_num(self._terms[nodes], nan=0.0)

    def set_progress(self, progress: float) -> None:
        """Anneals: recomputes the totals for a training progress in [0, 1]. Raw terms stay as they are."""
        if all(term.anneal is None for term in self._leaves) or progress == self.progress:
            return
        self.progress = float(progress)
        known = np.nonzero(~np.isnan(self.total))[0]
        self._total[known] = self._credit(known)

    def retry(self) -> int:
        """Forgets failures, so that `ensure` asks again (a judge that was down); returns how many there were."""
        nodes, columns = np.nonzero(self.status == FAILED)
        self._status[nodes, columns] = PENDING
        self._terms[nodes, columns] = np.nan
        if len(nodes):
            self._total[:] = np.nan  # ends further down may have counted on what failed
            self._flagged[:] = False
            self.complete = False
        self.failures = dict.fromkeys(self.names, 0)
        return len(nodes)

    def forget(self, nodes: np.ndarray) -> None:
        """Forgets all that was found at nodes: they turned out to be ends after they were evaluated."""
        self._terms[nodes] = np.nan
        self._status[nodes] = PENDING
        self._total[nodes] = np.nan
        self._flagged[nodes] = False
        self.complete = self.complete and not len(nodes)

    def _credit(self, nodes: np.ndarray) -> np.ndarray:
        credit = self._part.increments(self, nodes)
        for term in self._leaves:  # terms of weight 0 are reported too, though no sum asked for them
            self.column(term, nodes)
        if (beyond := np.isinf(credit)).any():
            node = int(nodes[np.flatnonzero(beyond)[0]])
            raise RewardError(f"the reward at node {node} is infinite: its weights are too large for its terms")
        unknown = np.isnan(credit)
        self._flagged[nodes[unknown]] = True
        return np.where(unknown, 0.0, credit)

    def _grow(self) -> None:
        """Makes room for the tree's new nodes and evaluates the terms that come as whole arrays."""
        old, new = self._size, int(self.source.size)
        if new > len(self._total):
            capacity = new if not old else max(new, 2 * len(self._total))
            self._terms = _enlarged(self._terms, capacity, np.nan)
            self._status = _enlarged(self._status, capacity, PENDING)
            self._total = _enlarged(self._total, capacity, np.nan)
            self._flagged = _enlarged(self._flagged, capacity, False)
        self._size = new
        fresh = np.arange(old, new)
        asked = Request(fresh, self.ends(fresh), self.truncated(fresh))
        ready = [term for term in self._leaves if term.ready(self.source, asked)]
        self.complete = len(ready) == len(self._leaves)
        if self.complete:
            self._total[fresh] = self._credit(fresh)
        for term in ready:
            self.column(term, fresh)

    def _evaluate(self, term: Term, column: int, nodes: np.ndarray) -> None:
        ended, truncated = self.ends(nodes), self.truncated(nodes)
        asked = np.asarray(self.source.depth)[nodes] > 0
        if term.scope == "group":
            asked &= False  # scored over trajectories: treegym.rewards.compose
        elif term.scope == "episode":
            asked &= ended | (truncated if term.at_truncation else False)
        self._terms[nodes[~asked], column] = 0.0
        self._status[nodes[~asked], column] = INAPPLICABLE
        nodes = nodes[asked]
        if not nodes.size:
            return
        values, reasons = self._values(term, Request(nodes, ended[asked], truncated[asked]))
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(values.astype(np.float32))  # as which they are kept
        if term.bounds is not None:
            low, high = term.bounds
            bad |= (values < low - 1e-6) | (values > high + 1e-6)
        good = ~bad
        self._terms[nodes[good], column] = values[good]
        self._status[nodes[good], column] = SCORED
        if bad.any():
            self._fail(term, column, nodes, values, np.nonzero(bad)[0], reasons)

    def _values(self, term: Term, asked: Request) -> tuple[np.ndarray, dict[int, str]]:
        """Asks a term; returns its values (NaN where it failed) and reasons by position.

        A batch in which it raises is asked again in halves, so that one bad path does not cost the others theirs.
        """
        count = len(asked.nodes)
        try:
            scored = term.values(self.source, asked)
            values, reasons = scored if isinstance(scored, Scored) else (scored, {})
            values = np.asarray(values, dtype=np.float64)
        except Exception as error:
            if isinstance(error, TreeGymError) and not isinstance(error, RewardError | BackendError):
                raise  # settings or files that cannot be used at all
            if count > 1:
                half = count // 2
                first, why = self._values(term, Request(*(part[:half] for part in asked)))
                if len(why) and self._raises(term):  # the first failure is all that will be told
                    return np.append(first, np.full(count - half, np.nan)), why
                second, more = self._values(term, Request(*(part[half:] for part in asked)))
                return np.append(first, second), {**why, **{half + at: reason for at, reason in more.items()}}
            return np.full(1, np.nan), {0: f"{type(error).__name__}: {error}"}
        if values.shape != asked.nodes.shape:
            wrong = f"it returned shape {values.shape} for {count} nodes; one number per node was expected, ({count},)"
            return np.full(count, np.nan), dict.fromkeys(range(count), wrong)
        return values, dict(reasons)

    def _fail(
        self, term: Term, column: int, nodes: np.ndarray, values: np.ndarray, bad: np.ndarray, reasons: dict[int, str]
    ) -> None:
        weightless = self.weights[column] == 0.0
        if self._raises(term):
            first = int(bad[0])
            within = f" in the range {term.bounds}" if term.bounds else ""
            reason = reasons.get(
                first, f"its value is {values[first]}; a finite number{within}, as float32, was expected"
            )
            raise RewardError(self._describe(term, int(nodes[first]), reason, len(reasons) or len(bad)))
        self._terms[nodes[bad], column] = term.default if term.on_error == "default" else np.nan
        self._status[nodes[bad], column] = FAILED
        self._flagged[nodes[bad]] |= not weightless
        self.failures[term.name] += len(bad)

    def _raises(self, term: Term) -> bool:
        """Whether a failure stops the run; one of a term that is only reported (weight 0) must not."""
        return term.on_error == "raise" and self.weights[self._column[id(term)]] != 0.0

    def _describe(self, term: Term, node: int, reason: str, count: int) -> str:
        root = int(np.asarray(self.source.root_of(np.array([node])))[0])
        path = [int(token) for token in self.source.path(node)]
        others = f" (and {count - 1} more nodes)" if count > 1 else ""
        try:
            text = f" ({self.source.text(node)[:80]!r})"
        except DataError:  # of a stored rollout only the whole text is known
            text = ""
        return (
            f"reward term {term.name!r} failed at root {root} ({self.source.prompts[root][:60]!r}), node {node}, "
            f"path {path}{text}{others}: {reason}"
        )


def _check_flags(flags: np.ndarray, what: str, size: int) -> None:
    if flags.dtype != np.bool_ or flags.shape != (size,):
        raise ConfigError(f"{what} is {flags.dtype} of shape {flags.shape}; bool of shape ({size},) was expected")


def _look_up(
    given: Ends | None, nodes: np.ndarray, source: TokenTree, otherwise: Callable[[TokenTree, np.ndarray], np.ndarray]
) -> np.ndarray:
    if given is None:
        return otherwise(source, nodes)
    if callable(given):
        return np.asarray(given(nodes), dtype=bool)
    flags = np.asarray(given, dtype=bool)
    if len(nodes) and int(nodes.max()) >= len(flags):  # the tree grew past the array: stored flags decide there
        known = nodes < len(flags)
        result = otherwise(source, nodes)
        result[known] = flags[nodes[known]]
        return result
    return flags[nodes]


def _enlarged(array: np.ndarray, capacity: int, fill: float) -> np.ndarray:
    result = np.full((capacity, *array.shape[1:]), fill, dtype=array.dtype)
    result[: len(array)] = array
    return result
