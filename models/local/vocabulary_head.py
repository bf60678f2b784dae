"""What is asked of next-token distributions, without a row of the whole vocabulary ever being laid out.

A vocabulary of 262,144 tokens takes 1 MB per row in float32, and mostly a few of its numbers are wanted: the
log-probability of some tokens, the mass of some sets of tokens, the best and the worst few. All of them need the log of
the sum over the vocabulary, and nothing else of the rest. So the output embedding is multiplied block by block of the
vocabulary, and each block is reduced before the next one is made.

Letters: R rows (hidden states), D hidden size, V vocabulary, b columns of a block, k ranks, Q questions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from treegym.models.local.network import Network
from treegym.models.readings import Question, Readings

__all__ = ["LARGE", "read_vocabulary"]

LARGE = 8192  # tokens of a vocabulary from which on it is read in blocks
BLOCK = 8192  # columns of one block
ROWS = 1024  # rows of one block; so a block takes 32 MB in float32


@torch.inference_mode()
def read_vocabulary(
    model: Network,
    states: torch.Tensor,
    *,
    rows: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
    questions: list[Question] | None = None,
    best: int = 0,
    worst: int = 0,
    allowed: np.ndarray | None = None,
) -> Readings:
    """Reads next-token distributions off hidden states ``[R, D]``.

    Args:
        model: the model, for its output embedding and its ends.
        states: last hidden states.
        rows: row of each single token asked for ``[Q]``, rising.
        tokens: those tokens ``[Q]``; EOS means all of the model's ends.
        questions: sets of tokens whose mass is asked for; EOS in a set means itself alone.
        best: how many of the likeliest tokens to return.
        worst: how many of the unlikeliest.
        allowed: tokens that may be among them ``[V] bool``; all where None.
    """
    none = np.zeros(0, np.int64)
    rows, tokens, questions = (none if rows is None else rows), (none if tokens is None else tokens), questions or []
    parts = []
    masses = [np.empty(len(question.rows), np.float32) for question in questions]
    for start in range(0, max(len(states), 1), ROWS):
        stop = start + ROWS
        low, high = np.searchsorted(rows, [start, stop])
        inside = [(question.rows >= start) & (question.rows < stop) for question in questions]
        here = [Question(q.tokens, q.rows[mine] - start) for q, mine in zip(questions, inside, strict=True)]
        block = _Block(model, states[start:stop], rows[low:high] - start, tokens[low:high], here, best, worst, allowed)
        parts.append(block.read())
        for mass, mine, found in zip(masses, inside, parts[-1].masses, strict=True):
            mass[mine] = found
    tables = ("best_ids", "best_logp", "worst_ids", "worst_logp")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in tables}
    return Readings(np.concatenate([part.singles for part in parts]), masses, **joined)


class _Block:
    """The reading of up to `ROWS` rows."""

    def __init__(
        self,
        model: Network,
        states: torch.Tensor,
        rows: np.ndarray,
        tokens: np.ndarray,
        questions: list[Question],
        best: int,
        worst: int,
        allowed: np.ndarray | None,
    ) -> None:
        self.model, self.states, self.questions = model, states, questions
        self.device = states.device
        self.rows, self.tokens = rows, tokens
        self.best, self.worst = best, worst
        mask = np.ones(model.tokenizer.vocab_size, bool) if allowed is None else allowed.copy()
        self.ends = np.sort(np.array(model.ends, np.int64))
        self.eos_allowed = bool(mask[model.tokenizer.eos_id])
        mask[self.ends] = False  # the one end is added when its mass is known
        self.barred = torch.from_numpy(~mask).to(self.device)

    def read(self) -> Readings:
        size = self.model.tokenizer.vocab_size
        total = self._nothing(len(self.states))  # log of the sum over the vocabulary so far
        end = self._nothing(len(self.states))
        singles = self._nothing(len(self.tokens))
        masses = [self._nothing(len(question.rows)) for question in self.questions]
        tops: list[tuple[torch.Tensor, torch.Tensor]] = []
        lows: list[tuple[torch.Tensor, torch.Tensor]] = []
        for low in range(0, size, BLOCK):
            high = min(low + BLOCK, size)
            logits = self.model.block_of_logits(self.states, low, high)  # [R, b]
            ends = self.ends[(self.ends >= low) & (self.ends < high)] - low
            if len(ends):
                end = torch.logaddexp(end, logits[:, self._on(ends)].logsumexp(dim=1))
            inside = np.flatnonzero((self.tokens >= low) & (self.tokens < high))
            if len(inside):
                singles[self._on(inside)] = logits[self._on(self.rows[inside]), self._on(self.tokens[inside] - low)]
            for number, question in enumerate(self.questions):
                masses[number] = self._with_block(masses[number], question, logits, low, high)
            if self.best:
                tops.append(self._ranked(logits, low, high, self.best, largest=True))
            if self.worst:
                lows.append(self._ranked(logits, low, high, self.worst, largest=False))
            most = logits.amax(dim=1)
            total = torch.logaddexp(total, logits.sub_(most[:, None]).exp_().sum(dim=1).log_() + most)  # in place: last
        at_end = np.flatnonzero(np.isin(self.tokens, self.ends))
        if len(at_end):
            is_eos = self._on(self.tokens[at_end]) == self.model.tokenizer.eos_id
            theirs = end[self._on(self.rows[at_end])]
            singles[self._on(at_end)] = torch.where(is_eos, theirs, torch.full_like(theirs, -torch.inf))
        readings = Readings((singles - total[self._on(self.rows)]).cpu().numpy())
        for mass, question in zip(masses, self.questions, strict=True):
            readings.masses.append((mass - total[self._on(question.rows)]).cpu().numpy())
        if self.best:
            readings.best_ids, readings.best_logp = self._merged(tops, end, total, self.best, largest=True)
        else:
            readings.best_ids, readings.best_logp = _empty(len(self.states))
        if self.worst:
            readings.worst_ids, readings.worst_logp = self._merged(lows, end, total, self.worst, largest=False)
        else:
            readings.worst_ids, readings.worst_logp = _empty(len(self.states))
        return readings

    def _nothing(self, count: int) -> torch.Tensor:
        return torch.full((count,), -torch.inf, device=self.device)

    def _on(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _with_block(
        self, mass: torch.Tensor, question: Question, logits: torch.Tensor, low: int, high: int
    ) -> torch.Tensor:
        """Returns a question's mass with what this block adds."""
        first, last = np.searchsorted(question.tokens, [low, high])
        if first == last or not len(question.rows):
            return mass
        columns = question.tokens[first:last] - low
        rows = self._on(question.rows)
        dense = int(columns[-1]) - int(columns[0]) + 1 == len(columns)
        if dense:
            own = logits[rows, int(columns[0]) : int(columns[-1]) + 1]  # [Q, n]
        else:
            own = logits[rows[:, None], self._on(columns)[None, :]]
        return torch.logaddexp(mass, own.logsumexp(dim=1))

    def _ranked(
        self, logits: torch.Tensor, low: int, high: int, count: int, *, largest: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the best or worst of a block, logits and ids, without tokens that are not allowed."""
        barred = self.barred[low:high]
        if bool(barred.any()):
            logits = logits.masked_fill(barred, -torch.inf if largest else torch.inf)
        if count == 1:  # a pass instead of a selection
            found = logits.max(dim=1, keepdim=True) if largest else logits.min(dim=1, keepdim=True)
        else:
            found = logits.topk(min(count, logits.shape[1]), dim=1, largest=largest)
        return found.values, found.indices + low

    def _merged(
        self,
        parts: list[tuple[torch.Tensor, torch.Tensor]],
        end: torch.Tensor,
        total: torch.Tensor,
        count: int,
        *,
        largest: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and log-probabilities of the ranks over all blocks, the one end among them."""
        worst_case = -torch.inf if largest else torch.inf
        own = end if self.eos_allowed else torch.full_like(end, worst_case)
        values = torch.cat([own[:, None], *(values for values, _ in parts)], dim=1)
        eos = torch.full_like(parts[0][1][:, :1], self.model.tokenizer.eos_id)
        ids = torch.cat([eos, *(ids for _, ids in parts)], dim=1)
        found = values.topk(min(count, values.shape[1]), dim=1, largest=largest)
        chosen = ids.gather(1, found.indices).to(torch.int32)
        known = torch.isfinite(found.values)
        logp = torch.where(known, found.values - total[:, None], found.values)
        return torch.where(known, chosen, -1).cpu().numpy(), logp.cpu().numpy()


def _empty(rows: int) -> Any:
    return np.zeros((rows, 0), np.int32), np.zeros((rows, 0), np.float32)
