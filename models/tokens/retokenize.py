"""A teacher with another tokenizer, made to speak the primary's vocabulary.

The teacher reads the text of a context and proposes text; at the boundary the text is written in the primary's tokens,
exactly. What the teacher says about one of the primary's tokens is the probability that its own text goes on with that
token's bytes:

    P(piece | text) = sum over its tokens t whose bytes begin with piece of P(t | text)
                      + P(piece's own tokens, one after the other | text), where the piece takes it several tokens.

The second part counts the teacher's own way to write the piece only, not every way; other ways have little mass.
Pieces may begin one another, so these are marginals and need not sum to one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Unpack

import numpy as np

from treegym.errors import DataError
from treegym.models.base import (
    Embeds,
    FoldsEnds,
    Generates,
    Sampling,
    SamplingSettings,
    Scores,
    TextTokenizer,
    TokenIds,
    able,
    needed,
    through_stop,
    told_logprobs,
)
from treegym.models.readings import ReadsVocabulary
from treegym.models.tokens.boundary import Boundary, complete_text, pieces_of, spoken
from treegym.models.tokens.foreign_scores import ByteOrder, score_foreign_trees
from treegym.models.tree_scores import Branches, TreeScores, no_opinions

__all__ = ["Retokenized", "in_vocabulary_of"]

NOTHING = np.float32(-1e4)  # in place of log 0


def in_vocabulary_of(model: Generates, tokenizer: TextTokenizer) -> Generates:
    """Returns the model itself if it speaks this vocabulary already, else the model behind the boundary."""
    same = model.tokenizer.vocab_size == tokenizer.vocab_size  # fingerprints of large vocabularies take seconds
    if same and model.tokenizer.fingerprint() == tokenizer.fingerprint():
        return model
    return Retokenized(model, tokenizer)


class Retokenized:
    """Fits `LanguageModel` as far as the inner model does: ids in and out are the primary's, it never sees them."""

    def __init__(self, model: Generates, tokenizer: TextTokenizer) -> None:
        self.name = model.name
        self.inner = model
        self.tokenizer = tokenizer
        self._boundary = Boundary(tokenizer)
        self._pieces = pieces_of(model.tokenizer)  # the teacher's
        self._begin = tuple(getattr(model.tokenizer, "prefix_ids", ()))
        self._openings: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._spelled: dict[int, list[int] | None] = {}
        self._bytes: ByteOrder | None = None
        self._tables: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        mean_length = [np.mean([len(p) for p in pieces if p]) for pieces in (pieces_of(tokenizer), self._pieces)]
        # how many of the teacher's tokens one of the primary's takes, about
        self.stretch = float(np.clip(mean_length[0] / mean_length[1], 1.0, 8.0))

    def open_with(self, prompt: TokenIds, opening: TokenIds) -> None:
        """Makes contexts that begin with `prompt` begin, for the teacher, with its own ids `opening` (a chat's)."""
        self._openings[tuple(prompt)] = tuple(opening)

    # ---------------------------------------------------------------- the boundary

    def teacher_context(self, context: TokenIds) -> tuple[list[int], bytes] | None:
        """Returns the teacher's ids of a context, and bytes already written that its ids cannot end with.

        A path may write what is not text, or text that the teacher's vocabulary lacks: then it has no opinion.
        """
        opening, rest = self._opening(context)
        try:
            text, pending = complete_text(spoken(self.tokenizer, rest))
            ids = self.inner.tokenizer.encode(text) if text else []
        except DataError:
            return None
        lost = text[len(text.rstrip()) :]
        if lost and not self.inner.tokenizer.decode(ids).endswith(lost):  # word pieces forget spaces at the end
            pending = lost.encode() + pending
        return [*opening, *ids], pending

    def _opening(self, context: TokenIds) -> tuple[tuple[int, ...], list[int]]:
        ids = [int(i) for i in context]
        for length in sorted({len(prompt) for prompt in self._openings}, reverse=True):
            known = self._openings.get(tuple(ids[:length]))
            if known is not None:
                return known, ids[length:]
        return self._begin, ids

    def _table(self, pending: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Returns pairs (primary's token, teacher's token) such that the teacher's bytes, after those already
        written, begin with the primary's piece."""
        if pending not in self._tables:
            longest = max(len(piece) for piece in pieces_of(self.tokenizer))
            ours, theirs = [], []
            by_piece: dict[bytes, list[int]] = {}
            for token, piece in enumerate(pieces_of(self.tokenizer)):
                by_piece.setdefault(piece, []).append(token)
            for token, piece in enumerate(self._pieces):
                if not piece.startswith(pending):
                    continue
                fresh = piece[len(pending) :]
                for length in range(1, min(len(fresh), longest) + 1):
                    for own in by_piece.get(fresh[:length], ()):
                        ours.append(own)
                        theirs.append(token)
            if not pending:
                ours.append(self.tokenizer.eos_id)
                theirs.append(self.inner.tokenizer.eos_id)
            self._tables[pending] = np.array(ours, np.int64), np.array(theirs, np.int64)
        return self._tables[pending]

    # ---------------------------------------------------------------- the protocol

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        """Returns log-marginals ``[B, V]`` by the teacher's next token; pieces that take it several are not counted."""
        result = np.full((len(contexts), self.tokenizer.vocab_size), np.nan, np.float32)
        for row, logprobs, pending in self._asked(contexts):
            result[row] = self._marginals(logprobs, pending)
        return result

    def _asked(self, contexts: Sequence[TokenIds]) -> list[tuple[int, np.ndarray, bytes]]:
        """Returns row, the teacher's log-probabilities ``[V]`` and pending bytes of every context it understands."""
        situations = [(row, self.teacher_context(context)) for row, context in enumerate(contexts)]
        known = [(row, situation) for row, situation in situations if situation is not None]
        if not known:
            return []
        theirs = needed(self.inner, Scores).next_logprobs([ids for _, (ids, _) in known])
        return [(row, logprobs, pending) for (row, (_, pending)), logprobs in zip(known, theirs, strict=True)]

    def _marginals(self, logprobs: np.ndarray, pending: bytes) -> np.ndarray:
        ours, theirs = self._table(pending)
        mass = np.exp(logprobs.astype(np.float64))
        total = 1.0
        if pending:  # given that the teacher writes the bytes already written
            total = float(mass[[piece.startswith(pending) for piece in self._pieces]].sum())
        sums = np.bincount(ours, weights=mass[theirs], minlength=self.tokenizer.vocab_size)  # [V]
        with np.errstate(divide="ignore"):
            logs = np.log(sums) - math.log(max(total, 1e-300))
        return np.maximum(np.minimum(logs, 0.0), NOTHING).astype(np.float32)

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        marginals = self.next_logprobs(contexts)
        ids = np.argsort(-marginals, axis=1, kind="stable")[:, :k].astype(np.int32)
        return ids, np.take_along_axis(marginals, ids, axis=1)

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        steps = [
            ([*context, *continuation[:cut]], int(continuation[cut]))
            for context, continuation in zip(contexts, continuations, strict=True)
            for cut in range(len(continuation))
        ]
        values = self._token_logprobs(steps)
        cuts = np.cumsum([len(continuation) for continuation in continuations])[:-1]
        return list(np.split(values, cuts))

    def _token_logprobs(self, steps: Sequence[tuple[list[int], int]]) -> np.ndarray:
        """Returns the log-probability of one of the primary's tokens after each context ``[n] float32``."""
        if not steps:
            return np.zeros(0, np.float32)
        marginals = self.next_logprobs([context for context, _ in steps])
        values = marginals[np.arange(len(steps)), [token for _, token in steps]].astype(np.float64)
        spelled, rows = [], []
        for row, (context, token) in enumerate(steps):
            situation = self.teacher_context(context)
            own = self.spelling(token)
            if situation is not None and own is not None and not situation[1]:
                rows.append(row)
                spelled.append((situation[0], own))
        if spelled:
            chains = needed(self.inner, Scores).score([ids for ids, _ in spelled], [own for _, own in spelled])
            for row, chain in zip(rows, chains, strict=True):
                values[row] = np.logaddexp(values[row], float(chain.sum()))
        return np.clip(values, NOTHING, 0.0).astype(np.float32)

    def spelling(self, token: int) -> list[int] | None:
        """Returns the teacher's own tokens for a piece, if it takes it several."""
        if token not in self._spelled:
            self._spelled[token] = self._spell(token)
        return self._spelled[token]

    def _spell(self, token: int) -> list[int] | None:
        piece = pieces_of(self.tokenizer)[token]
        try:
            ids = self.inner.tokenizer.encode(piece.decode()) if piece else []
        except (UnicodeDecodeError, DataError):
            return None
        return ids if len(ids) > 1 and b"".join(self._pieces[i] for i in ids) == piece else None

    def score_trees(
        self, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
    ) -> list[TreeScores]:
        """Scores trees in the primary's vocabulary; likely tokens begin what the teacher's own likely tokens write.

        The marginals need all log-probabilities: a teacher that tells fewer has no opinions here.
        """
        if able(self.inner, ReadsVocabulary) and self.inner.reads_sets:
            return score_foreign_trees(self, trees, best=best, worst=worst, hidden=hidden)
        if not hidden and told_logprobs(self.inner) < self.inner.tokenizer.vocab_size:
            return [no_opinions(tree) for tree in trees]
        results = []
        for tree in trees:
            contexts = [tree.context(node) for node in range(-1, tree.size)]
            likely: list[list[int]] = [[] for _ in contexts]
            unlikely: list[list[int]] = [[] for _ in contexts]
            marginals = np.full((len(contexts), self.tokenizer.vocab_size), np.nan, np.float32)
            for row, logprobs, pending in self._asked(contexts):
                order = np.argsort(-logprobs, kind="stable")
                likely[row] = list(self.first_tokens(order, pending, contexts[row], best))
                unlikely[row] = list(self.first_tokens(order[::-1], pending, contexts[row], worst))
                marginals[row] = self._marginals(logprobs, pending)
            steps = [(contexts[p + 1], int(t)) for p, t in zip(tree.parents, tree.tokens, strict=True)]
            best_ids, worst_ids = _squared(likely), _squared(unlikely)
            results.append(
                TreeScores(
                    logp=self._token_logprobs(steps),
                    best_ids=best_ids,
                    best_logp=_taken(marginals, best_ids),
                    worst_ids=worst_ids,
                    worst_logp=_taken(marginals, worst_ids),
                    hidden=self.embed(contexts) if hidden else np.zeros((len(contexts), 0), np.float32),
                )
            )
        return results

    def rank_trees(self, trees: Sequence[Branches], *, best: int, worst: int) -> list[TreeScores]:
        """Returns the ranks of `score_trees`; log-probabilities of nodes may be NaN."""
        if able(self.inner, ReadsVocabulary) and self.inner.reads_sets:
            return score_foreign_trees(self, trees, best=best, worst=worst, hidden=False, nodes=False)
        return self.score_trees(trees, best=best, worst=worst)

    def first_tokens(
        self, order: Sequence[int] | np.ndarray, pending: bytes, context: list[int], count: int
    ) -> dict[int, int]:
        """Returns the primary's first tokens of what the teacher's tokens write, in the teacher's order, distinct.

        Each comes with the first of the teacher's tokens that begins with it.
        """
        found: dict[int, int] = {}
        write = self._boundary.after(context)
        for token in order:
            if len(found) >= count:
                break
            piece = self._pieces[token]
            if int(token) == self.inner.tokenizer.eos_id:
                if not pending:
                    found.setdefault(self.tokenizer.eos_id, int(token))
            elif len(piece) > len(pending) and piece.startswith(pending):
                ids = write(piece[len(pending) :])
                if ids:
                    found.setdefault(ids[0], int(token))
        return found

    def byte_order(self) -> ByteOrder:
        """Returns the teacher's vocabulary in the order of its bytes, without other tokens that end a text."""
        if self._bytes is None:
            ends = self.inner.ends if able(self.inner, FoldsEnds) else ()
            self._bytes = ByteOrder(self.inner.tokenizer, without=ends)
        return self._bytes

    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        asked = Sampling(**settings)
        situations = [self._understood(context) for context in contexts]
        made = self.inner.generate(
            [ids for ids, _ in situations],
            max_new_tokens=math.ceil(asked.max_new_tokens * self.stretch),
            temperature=asked.temperature,
            seed=asked.seed,
        )
        stops = asked.stops(self.tokenizer)
        answers = []
        for context, (_, pending), theirs in zip(contexts, situations, made, strict=True):
            ids, ended = self._written(theirs, pending, [int(i) for i in context])
            answer = [*ids, self.tokenizer.eos_id] if ended else ids
            answers.append((through_stop(answer, stops) or answer)[: asked.max_new_tokens])
        return answers

    def _written(self, theirs: list[int], pending: bytes, context: list[int]) -> tuple[list[int], bool]:
        """Returns the teacher's text in the primary's tokens, and whether it came to its end.

        Where the primary's vocabulary cannot write the text it stops before; it is never altered.
        """
        ended = bool(theirs) and theirs[-1] == self.inner.tokenizer.eos_id
        written = b"".join(self._pieces[token] for token in theirs)
        sound = _sound(written)
        if not sound.startswith(pending):
            return [], False
        for cut in range(len(sound), len(pending) - 1, -1):
            ids = self._boundary.tokens_for(sound[len(pending) : cut], after=context)
            if ids is not None:
                return ids, ended and cut == len(written)
        return [], False

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        return needed(self.inner, Embeds).embed([self._understood(context)[0] for context in contexts])

    def _understood(self, context: TokenIds) -> tuple[list[int], bytes]:
        situation = self.teacher_context(context)
        if situation is None:
            raise DataError(f"{self.name!r} cannot read the text {spoken(self.tokenizer, context)[:60]!r}")
        return situation

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.inner.fingerprint()} in {self.tokenizer.fingerprint()}".encode()).hexdigest()


def _sound(written: bytes) -> bytes:
    """Returns the bytes up to where they stop being UTF-8."""
    try:
        written.decode()
    except UnicodeDecodeError as error:
        return written[: error.start]
    return written


def _squared(rows: list[list[int]]) -> np.ndarray:
    """Returns rows as ``[n, longest] int32``; -1 where a row has no more."""
    width = max((len(row) for row in rows), default=0)
    return np.array([row + [-1] * (width - len(row)) for row in rows], np.int32).reshape(len(rows), width)


def _taken(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns the values at ids, `NOTHING` where there is no id."""
    taken = np.take_along_axis(values, np.maximum(ids, 0).astype(np.int64), axis=1)
    return np.where(ids >= 0, taken, NOTHING).astype(np.float32)
