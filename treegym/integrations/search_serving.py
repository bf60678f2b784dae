"""Answers found by search, behind the same protocol: what `treegym serve --search` puts between server and model.

Every step of a search is a job of the ordinary batcher, so that searches of many clients share its batches. N: budget.
"""

from __future__ import annotations

import concurrent.futures
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treegym.checks import one_of, whole
from treegym.errors import BackendError
from treegym.integrations.scoring import TextReward
from treegym.models.serving.batcher import Batcher
from treegym.models.serving.jobs import Job, Position

__all__ = ["METHODS", "SearchingBatcher"]

METHODS = ("best_of_n", "beam", "puct")
WIDTH = 4  # children that PUCT considers at a node
C_PUCT = 1.25
SIDE_BY_SIDE = 8  # samples of best_of_n between two words of progress


@dataclass
class _Found:
    """A whole answer, or the beginning of one."""

    positions: list[Position]
    finish_reason: str = ""
    score: float = -math.inf

    @property
    def logprob(self) -> float:
        return sum(position.logprob or 0.0 for position in self.positions)


@dataclass
class _Node:
    position: Position | None
    prior: float = 1.0
    visits: int = 0
    total: float = 0.0
    children: list[_Node] = field(default_factory=list)


class SearchingBatcher:
    """A `Batcher` whose jobs are answered by search. Those that echo or score a prompt pass as they are.

    Args:
        inner: what runs the model.
        decode: tokens to text.
        method: ``best_of_n`` samples N answers; ``beam`` keeps the N likeliest beginnings; ``puct`` makes N
            simulations, each a rollout, over the likeliest children. The answer with the highest reward wins, of equals
            the likelier.
        reward: a reward spec; the request brings no reference, so it must not compare with one.
        budget: N.
    """

    def __init__(
        self,
        inner: Batcher,
        decode: Callable[[list[int]], str],
        *,
        method: str,
        reward: Any,
        budget: int,
        workers: int = 8,
    ) -> None:
        one_of("--search", method, METHODS)
        self.budget = whole("--budget", budget, low=1)
        self._inner, self._decode, self._method = inner, decode, method
        self._reward = TextReward(reward)
        self._scoring = threading.Lock()
        self._pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="treegym-search")
        self.metrics, self.embed = inner.metrics, inner.embed

    @property
    def load(self) -> tuple[int, int]:
        """Returns how many sequences run and how many wait."""
        return self._inner.load

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues the jobs of one request."""
        for job in jobs:
            if job.echo:
                self._inner.submit([job])
            else:
                self._pool.submit(self._answer, job)

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Drops jobs whose client has gone; a search ends at its next step."""
        self._inner.cancel(jobs)

    def close(self, timeout_s: float = 30.0) -> None:
        """Ends searches under way, then the batcher."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._inner.close(timeout_s)

    # ---------------------------------------------------------------- in a thread of the pool

    def _answer(self, job: Job) -> None:
        if not job.done.set_running_or_notify_cancel():
            return
        try:
            search = _Search(self._inner, job)
            found = getattr(self, f"_{self._method}")(search)
            best = max(found, key=lambda answer: (answer.score, answer.logprob))
            job.notes = {**self._notes(search, found), "logprob": best.logprob}
            for position in best.positions:
                job.generated.append(position)
                if job.on_token is not None:
                    job.on_token(position)
            job.finish_reason = best.finish_reason
            job.done.set_result(job)
        except Exception as error:  # noqa: BLE001 (handed to whoever waits for the job)
            job.done.set_exception(error)

    def _notes(self, search: _Search, answers: Sequence[_Found]) -> dict[str, Any]:
        """What is told of a search; a score that is not known is None."""
        best = max((answer.score for answer in answers), default=-math.inf)
        return {
            "method": self._method, "budget": self.budget, "answers": len(answers), "tokens": search.tokens,
            "score": best if math.isfinite(best) else None,
        }  # fmt: skip

    def _tell(self, search: _Search, answers: Sequence[_Found]) -> None:
        """Tells whoever reads the answer as a stream how far the search has come."""
        if search.job.on_token is not None:
            search.job.notes = self._notes(search, answers)
            search.job.on_token(None)

    def _scored(self, search: _Search, answers: list[_Found]) -> list[_Found]:
        """Fills in the rewards; an answer that could not be scored counts as the worst."""
        prompt = self._decode(search.job.prompt)
        texts = [self._decode([p.token for p in answer.positions]) for answer in answers]
        cut = [answer.finish_reason != "stop" for answer in answers]
        tokens = [[p.token for p in answer.positions] for answer in answers]
        logprobs = [[p.logprob or 0.0 for p in answer.positions] for answer in answers]
        count = len(answers)
        with self._scoring:  # rewards load models and keep caches, which are not made for several threads
            scores = self._reward(
                [prompt] * count, texts, [""] * count, truncated=cut, tokens=tokens, logprobs=logprobs
            )
        for answer, score in zip(answers, scores, strict=True):
            answer.score = -math.inf if score is None else score
        return answers

    def _best_of_n(self, search: _Search) -> list[_Found]:
        found: list[_Found] = []
        for _ in range(0, self.budget, SIDE_BY_SIDE):
            count = min(SIDE_BY_SIDE, self.budget - len(found))
            found += self._scored(search, search.extend([[]] * count, search.job.max_tokens, sampled=True))
            self._tell(search, found)
        return found

    def _beam(self, search: _Search) -> list[_Found]:
        beams = [_Found([])]
        whole_ones: list[_Found] = []
        for _ in range(search.job.max_tokens):
            steps = search.extend([beam.positions for beam in beams], 1, top=self.budget)
            longer = []
            for beam, step in zip(beams, steps, strict=True):
                last = step.positions[-1]
                for token, logprob in zip(last.top_ids, last.top_logprobs, strict=True):
                    longer.append(_Found([*beam.positions, Position(token, logprob, last.top_ids, last.top_logprobs)]))
            longer.sort(key=lambda beam: -beam.logprob)
            beams = []
            for beam in longer[: self.budget]:
                ended = search.is_end(beam.positions)
                beam.finish_reason = "stop" if ended else ""
                (whole_ones if ended else beams).append(beam)
            self._tell(search, whole_ones)
            if not beams or len(whole_ones) >= self.budget:
                break
        for beam in beams if not whole_ones else []:
            beam.finish_reason = "length"
            whole_ones.append(beam)
        return self._scored(search, whole_ones)

    def _puct(self, search: _Search) -> list[_Found]:
        root = _Node(None, visits=1)
        answers: list[_Found] = []
        for _ in range(self.budget):
            node, path, prefix = root, [root], []
            while node.children:
                node = _chosen(node)
                path.append(node)
                assert node.position is not None
                prefix.append(node.position)
            if search.is_end(prefix) or len(prefix) >= search.job.max_tokens:
                reason = "stop" if search.is_end(prefix) else "length"
                [answer] = self._scored(search, [_Found(prefix, reason)])
            else:
                room = search.job.max_tokens - len(prefix)
                [answer] = self._scored(search, search.extend([prefix], room, top=WIDTH, sampled=len(answers) > 0))
                first = answer.positions[len(prefix)]
                node.children = [
                    _Node(Position(t, lp, first.top_ids, first.top_logprobs), math.exp(lp))
                    for t, lp in zip(first.top_ids, first.top_logprobs, strict=True)
                ]
            answers.append(answer)
            self._tell(search, answers)
            for passed in path:
                passed.visits += 1
                passed.total += answer.score if math.isfinite(answer.score) else 0.0
        return answers


def _chosen(node: _Node) -> _Node:
    """PUCT (Rosin 2011; AlphaZero): Q + c P sqrt(sum N) / (1 + N), Q scaled to the values seen among the children."""
    means = [child.total / child.visits for child in node.children if child.visits]
    low, span = (min(means), max(means) - min(means)) if means else (0.0, 0.0)

    def worth(child: _Node) -> float:
        q = (child.total / child.visits - low) / span if child.visits and span > 0 else 0.5
        return q + C_PUCT * child.prior * math.sqrt(node.visits) / (1 + child.visits)

    return max(node.children, key=worth)


class _Search:
    """The steps of one search as jobs of the batcher."""

    def __init__(self, batcher: Batcher, job: Job) -> None:
        self.batcher, self.job, self.tokens = batcher, job, 0
        self._rng = job.generator if job.generator is not None else np.random.default_rng(0)

    def is_end(self, positions: Sequence[Position]) -> bool:
        """Whether a beginning of an answer is a whole one."""
        ids = [position.token for position in positions]
        stops = self.job.stops_text
        return bool(ids) and (ids[-1] in self.job.stop_ids or (stops is not None and stops(ids)))

    def extend(
        self, prefixes: Sequence[Sequence[Position]], count: int, *, top: int = 0, sampled: bool = False
    ) -> list[_Found]:
        """Lets the model continue each prefix by at most `count` tokens."""
        if self.job.cancelled:
            raise BackendError("the client went away")
        temperature = (self.job.temperature or 1.0) if sampled else 0.0
        jobs = [
            Job(
                prompt=[*self.job.prompt, *(p.token for p in prefix)],
                max_tokens=count,
                temperature=temperature,
                generator=self._rng.spawn(1)[0] if temperature else None,
                stop_ids=self.job.stop_ids,
                stops_text=self._stopper([p.token for p in prefix]),
                top=max(top, self.job.top or 0),
            )
            for prefix in prefixes
        ]
        self.batcher.submit(jobs)
        try:
            done = [job.done.result() for job in jobs]
        finally:
            self.batcher.cancel(jobs)
        self.tokens += sum(len(job.generated) for job in done)
        return [
            _Found([*prefix, *job.generated], job.finish_reason) for prefix, job in zip(prefixes, done, strict=True)
        ]

    def _stopper(self, before: list[int]) -> Callable[[list[int]], bool] | None:
        stops = self.job.stops_text
        return None if stops is None else lambda ids: stops([*before, *ids])
