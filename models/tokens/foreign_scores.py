"""Trees in one vocabulary scored by a model of another: every text read once, and no row of its vocabulary laid out.

The nodes' texts, written in the teacher's tokens, share their beginnings; the teacher reads the trie of all of them
(`TransformersModel.last_states`), not one text per node. What it says of a piece is the mass of its tokens that begin
with the piece's bytes. In the order of their bytes those tokens are neighbours, so a set is found by two
bisections, and its mass is summed while the vocabulary goes by in blocks (`treegym.models.local.vocabulary_head`).

Letters: n nodes of a tree, U distinct texts in the teacher's tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from treegym.models.base import Generates, TextTokenizer, TokenIds
from treegym.models.readings import Question, Readings
from treegym.models.tokens.boundary import pieces_of
from treegym.models.tree_scores import Branches, TreeScores

__all__ = ["ByteOrder", "score_foreign_trees"]

NOTHING = -1e4  # in place of log 0
SPARE = 2  # of the teacher's own tokens, so many more are ranked than first tokens wanted: several begin alike

Offers = list[list[tuple[int, float]]]  # likeliest and unlikeliest first tokens, each with a log-probability


class ByteOrder:
    """A vocabulary in the order of its tokens' bytes."""

    def __init__(self, tokenizer: TextTokenizer, *, without: Sequence[int] = ()) -> None:
        left_out = set(without)
        known = ((piece, i) for i, piece in enumerate(pieces_of(tokenizer)) if piece and i not in left_out)
        ordered = sorted(known)
        self._pieces = [piece for piece, _ in ordered]
        self._ids = np.array([i for _, i in ordered], np.int64)
        self._found: dict[bytes, np.ndarray] = {}

    def beginning_with(self, start: bytes) -> np.ndarray:
        """Returns the ids, rising, of the tokens whose bytes begin with `start` (all that have bytes, for none)."""
        ids = self._found.get(start)
        if ids is None:
            low = bisect_left(self._pieces, start)
            high = bisect_left(self._pieces, _after_all(start)) if start.strip(b"\xff") else len(self._pieces)
            ids = self._found[start] = np.sort(self._ids[low:high])
        return ids


def _after_all(start: bytes) -> bytes:
    """Returns the first byte string behind all that begin with `start`, which is not made of 0xff alone."""
    kept = start.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1])


class Foreign(Protocol):
    """What is asked of a model behind the boundary of two vocabularies (`treegym.models.tokens.retokenize`)."""

    inner: Generates
    tokenizer: TextTokenizer

    def teacher_context(self, context: TokenIds) -> tuple[list[int], bytes] | None: ...

    def spelling(self, token: int) -> list[int] | None: ...

    def first_tokens(
        self, order: Sequence[int] | np.ndarray, pending: bytes, context: list[int], count: int
    ) -> dict[int, int]: ...

    def byte_order(self) -> ByteOrder: ...

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray: ...


class _Texts:
    """Texts in the teacher's tokens, those of a tree distinct, numbered as they come."""

    def __init__(self) -> None:
        self.ids: list[list[int]] = []
        self.owner: list[int] = []
        self._number: dict[tuple[int, ...], int] = {}

    def add(self, owner: int, ids: Sequence[int]) -> int:
        key = (owner, *ids)
        number = self._number.get(key)
        if number is None:
            number = self._number[key] = len(self.ids)
            self.ids.append(list(ids))
            self.owner.append(owner)
        return number

    def alike(self) -> list[list[int]]:
        """Returns the numbers of all texts in groups, each of one tree and with one first token."""
        groups: dict[tuple[int, int], list[int]] = {}
        for number, (owner, ids) in enumerate(zip(self.owner, self.ids, strict=True)):
            groups.setdefault((owner, ids[0]), []).append(number)
        return list(groups.values())


def score_foreign_trees(
    teacher: Foreign, trees: Sequence[Branches], *, best: int, worst: int, hidden: bool, nodes: bool = True
) -> list[TreeScores]:
    """Returns what `Retokenized.score_trees` does, for a model on this machine; without `nodes` only the ranks."""
    return _Reading(teacher, trees, best, worst, nodes).scores(hidden)


@dataclass(frozen=True)
class _Plan:
    """What has to be looked up for one node's token: the teacher's end, or the mass of sets and a spelling."""

    end: int | None = None  # number of a single token
    mass: tuple[bytes, int] | None = None  # (bytes, text): tokens that begin with them
    given: tuple[bytes, int] | None = None  # likewise, of the bytes already written
    chain: tuple[int, ...] = ()  # numbers of single tokens, one after the other


class _Reading:
    """The trees of one call. A situation is (number of a text, pending bytes), or None for what is not understood."""

    def __init__(self, teacher: Foreign, trees: Sequence[Branches], best: int, worst: int, nodes: bool) -> None:
        self.teacher, self.trees = teacher, trees
        self.best, self.worst = best, worst
        self.order = teacher.byte_order()
        self.texts = _Texts()
        self.contexts = [[tree.context(node) for node in range(-1, tree.size)] for tree in trees]
        self.situations = [
            [self._situation(owner, context) for context in contexts] for owner, contexts in enumerate(self.contexts)
        ]
        self._singles: dict[tuple[int, int], int] = {}  # (text, teacher's token) -> its number
        self._sets: dict[bytes, dict[int, int]] = {}  # bytes -> text -> place in the answer
        if nodes:
            self._plans = [self._planned(number) for number in range(len(trees))]
        else:
            self._plans = [[None] * tree.size for tree in trees]

    def _situation(self, owner: int, context: list[int]) -> tuple[int, bytes] | None:
        found = self.teacher.teacher_context(context)
        return None if found is None else (self.texts.add(owner, found[0]), found[1])

    def _planned(self, number: int) -> list[_Plan | None]:
        """Returns what has to be looked up for each node of a tree, and notes that it will be."""
        tree, situations = self.trees[number], self.situations[number]
        plans: list[_Plan | None] = []
        for parent, token in zip(tree.parents.tolist(), tree.tokens.tolist(), strict=True):
            situation = situations[parent + 1]
            plans.append(None if situation is None else self._plan(token, *situation))
        return plans

    def _plan(self, token: int, text: int, pending: bytes) -> _Plan:
        if token == self.teacher.tokenizer.eos_id:
            return _Plan() if pending else _Plan(end=self._single(text, self.teacher.inner.tokenizer.eos_id))
        piece = pieces_of(self.teacher.tokenizer)[token]
        own = None if pending else self.teacher.spelling(token)
        return _Plan(
            mass=self._mass(text, pending + piece) if piece else None,
            given=self._mass(text, pending) if pending else None,
            chain=() if own is None else self._chain(text, own),
        )

    def _chain(self, text: int, own: Sequence[int]) -> tuple[int, ...]:
        """Returns the numbers of a spelling's tokens, each after the ones before it."""
        base, owner = self.texts.ids[text], self.texts.owner[text]
        return tuple(self._single(self.texts.add(owner, [*base, *own[:k]]), token) for k, token in enumerate(own))

    def _single(self, text: int, token: int) -> int:
        return self._singles.setdefault((text, int(token)), len(self._singles))

    def _mass(self, text: int, start: bytes) -> tuple[bytes, int]:
        rows = self._sets.setdefault(start, {})
        rows.setdefault(text, len(rows))
        return start, text

    def scores(self, hidden: bool) -> list[TreeScores]:
        """Reads all texts, and returns the scores of all trees."""
        inner: Any = self.teacher.inner
        states = self._states(inner)  # [U, D]
        pairs = np.array(list(self._singles), np.int64).reshape(-1, 2)
        order = np.argsort(pairs[:, 0], kind="stable")
        questions = [
            Question(self.order.beginning_with(start), np.array(list(rows), np.int64))
            for start, rows in self._sets.items()
        ]
        ranks = self._ranks()
        said: Readings = inner.read_vocabulary(
            states, rows=pairs[order, 0], tokens=pairs[order, 1], questions=questions, **ranks
        )
        singles = np.empty(len(order))
        singles[order] = said.singles
        masses = dict(zip(self._sets, said.masses, strict=True))
        offers = self._offers(said, states)
        results = []
        for tree, contexts, situations, plans in zip(
            self.trees, self.contexts, self.situations, self._plans, strict=True
        ):
            logp = np.array([self._value(plan, singles, masses) for plan in plans], np.float64)
            rows = [offers(context, situation) for context, situation in zip(contexts, situations, strict=True)]
            vectors = self.teacher.embed(contexts) if hidden else np.zeros((tree.size + 1, 0), np.float32)
            ranked = [_table([row[side] for row in rows]) for side in (0, 1)]
            results.append(TreeScores(np.clip(logp, NOTHING, 0.0).astype(np.float32), *ranked[0], *ranked[1], vectors))
        return results

    def _states(self, inner: Any) -> Any:
        """Returns the state after every text ``[U, D]``; texts of a tree are read together, as they begin alike."""
        import torch

        groups = self.texts.alike()
        order = [number for group in groups for number in group]
        found = inner.last_states([[self.texts.ids[number] for number in group] for group in groups])
        states = torch.empty_like(found)
        states[torch.tensor(order, device=found.device)] = found
        return states

    def _value(self, plan: _Plan | None, singles: np.ndarray, masses: dict[bytes, np.ndarray]) -> float:
        """Returns the log-probability of one node's token, NaN where the teacher has no opinion."""
        if plan is None:
            return float("nan")
        if plan.end is not None:
            return float(singles[plan.end])
        value = NOTHING if plan.mass is None else self._looked_up(plan.mass, masses)
        if plan.given is not None:  # given that the teacher writes the bytes already written
            value -= max(self._looked_up(plan.given, masses), NOTHING)
        if plan.chain:
            value = float(np.logaddexp(value, singles[list(plan.chain)].sum()))
        return value

    def _looked_up(self, asked: tuple[bytes, int], masses: dict[bytes, np.ndarray]) -> float:
        start, text = asked
        return float(masses[start][self._sets[start][text]])

    def _ranks(self) -> dict[str, Any]:
        """Returns what has to be asked of the vocabulary for the offers."""
        if not (self.best or self.worst):
            return {}
        inner = self.teacher.inner
        allowed = np.zeros(inner.tokenizer.vocab_size, bool)
        allowed[self.order.beginning_with(b"")] = True
        allowed[inner.tokenizer.eos_id] = True
        most = int(allowed.sum())
        return {
            "best": min(SPARE * self.best, most), "worst": min(SPARE * self.worst, most), "allowed": allowed,
        }  # fmt: skip

    def _offers(self, said: Readings, states: Any) -> Callable[[list[int], tuple[int, bytes] | None], Offers]:
        """Returns what tells, for a context, its likeliest and unlikeliest first tokens with log-probabilities.

        Likely ones are looked for until there are enough; unlikely ones may be fewer, as many of them begin alike.
        """
        inner: Any = self.teacher.inner

        def likely(text: int, pending: bytes, context: list[int]) -> list[tuple[int, float]]:
            ids, values, ranks = said.best_ids[text], said.best_logp[text], self._ranks()
            found = self._first(ids, values, pending, context, self.best)
            while len(found) < self.best and ranks["best"] < int(ranks["allowed"].sum()):
                ranks |= {"best": min(8 * ranks["best"], int(ranks["allowed"].sum())), "worst": 0}
                more = inner.read_vocabulary(states[text : text + 1], **ranks)
                found = self._first(more.best_ids[0], more.best_logp[0], pending, context, self.best)
            return found

        def told(context: list[int], situation: tuple[int, bytes] | None) -> Offers:
            if situation is None:
                return [[], []]
            text, pending = situation
            unlikely = (
                self._first(said.worst_ids[text], said.worst_logp[text], pending, context, self.worst)
                if self.worst
                else []
            )
            return [likely(text, pending, context) if self.best else [], unlikely]

        return told

    def _first(
        self, ids: np.ndarray, values: np.ndarray, pending: bytes, context: list[int], count: int
    ) -> list[tuple[int, float]]:
        """Returns up to `count` of the primary's first tokens of what the teacher's tokens write, best first."""
        logp = {token: value for token, value in zip(ids.tolist(), values.tolist(), strict=True) if token >= 0}
        first = self.teacher.first_tokens(list(logp), pending, context, count)
        return [(token, logp[theirs]) for token, theirs in first.items()]


def _table(rows: list[list[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids ``[n, longest] int32``, -1 where a row has no more, and their log-probabilities."""
    width = max((len(row) for row in rows), default=0)
    ids = np.full((len(rows), width), -1, np.int32)
    values = np.full((len(rows), width), NOTHING, np.float32)
    for place, row in enumerate(rows):
        for rank, (token, logp) in enumerate(row):
            ids[place, rank], values[place, rank] = token, logp
    return ids, values
