"""Continuous micro-batching: one thread owns the model; sequences join and leave its batch between any two tokens."""

from __future__ import annotations

import concurrent.futures
import math
import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from treegym.errors import BackendError, ConfigError
from treegym.models.base import LanguageModel
from treegym.models.local.decoding import choose_tokens, top_k
from treegym.models.serving.jobs import Job, Position
from treegym.models.serving.metrics import Metrics
from treegym.models.serving.stepper import stepper_for

__all__ = ["Batcher", "Full"]


class Full(BackendError):
    """The queue is at its limit; come back later."""


class Batcher:
    """Feeds a model with batches of at most `max_batch_size` sequences.

    An idle batcher that gets a job waits for company until none has come for a quarter of `max_wait_ms`, or
    `max_wait_ms` have passed since the first, or the batch is full. After a wait in vain it waits no more until two
    come within `max_wait_ms`: requests come one by one. A busy one never waits: what arrives joins the running
    batch at its next token.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        max_batch_size: int = 32,
        max_wait_ms: float = 5.0,
        max_queue: int = 512,
        metrics: Metrics | None = None,
    ) -> None:
        if max_batch_size < 1 or max_queue < 1 or max_wait_ms < 0:
            raise ConfigError(
                "max_batch_size and max_queue must be at least 1 and max_wait_ms at least 0, not "
                f"{max_batch_size}, {max_queue}, {max_wait_ms}"
            )
        self.model = model
        self._stepper = stepper_for(model)
        self.metrics = metrics if metrics is not None else Metrics()
        self.max_batch_size, self.max_queue = max_batch_size, max_queue
        self._max_wait = max_wait_ms / 1e3
        self._waiting: deque[Job] = deque()
        self._active: list[Job] = []
        self._embeddings: deque[tuple[list[list[int]], concurrent.futures.Future[np.ndarray]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._alone = False  # whether the last wait for company was in vain, and nobody came at the same time since
        self._arrived = -math.inf  # when the last jobs came
        self._thread = threading.Thread(target=self._run, name="treegym-batcher", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------- from other threads

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues the jobs of one request, all or none; each one's `done` is set when it is finished."""
        with self._changed:
            if self._closing:
                raise BackendError("the server is shutting down")
            if len(self._waiting) + len(jobs) > self.max_queue:
                self.metrics.rejected += 1
                raise Full(f"{len(self._waiting)} sequences are waiting and {self.max_queue} may")
            now = time.monotonic()
            self._alone = self._alone and now - self._arrived > self._max_wait
            self._arrived = now
            self._waiting.extend(jobs)
            self._changed.notify_all()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Drops jobs whose client has gone."""
        for job in jobs:
            job.cancelled = True

    def embed(self, contexts: list[list[int]]) -> concurrent.futures.Future[np.ndarray]:
        """Returns a future of the contexts' embeddings ``[B, D] float32``; they go between two batches."""
        future: concurrent.futures.Future[np.ndarray] = concurrent.futures.Future()
        with self._changed:
            if self._closing:
                raise BackendError("the server is shutting down")
            if len(self._embeddings) >= self.max_queue:
                self.metrics.rejected += 1
                raise Full(f"{len(self._embeddings)} requests for embeddings are waiting")
            self._embeddings.append((contexts, future))
            self._changed.notify_all()
        return future

    @property
    def load(self) -> tuple[int, int]:
        """Returns how many sequences run and how many wait."""
        return len(self._active), len(self._waiting)

    def close(self, timeout_s: float = 30.0) -> None:
        """Takes no more jobs, finishes those it has within `timeout_s`, fails the others, and ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        for job in [*self._active, *self._waiting]:
            _fail(job, BackendError("the server shut down before this was finished"))

    # ---------------------------------------------------------------- in the batcher's thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._active and not self._embeddings:
                    if self._closing:
                        return
                    self._changed.wait()
                if self._waiting and not self._active and not self._alone:
                    self._gather()
                while self._waiting and len(self._active) < self.max_batch_size:
                    self._active.append(self._waiting.popleft())
            while self._embeddings:
                _embed(self.model, *self._embeddings.popleft())
            self._active = [job for job in self._active if not self._finished(job)]
            self._score([job for job in self._active if job.wants_score])
            self._extend([job for job in self._active if not job.wants_score and job.wants_tokens])
            self._active = [job for job in self._active if not self._finished(job)]

    def _gather(self) -> None:
        """Waits for company; holds the lock, which the condition gives up while it waits."""
        deadline = time.monotonic() + self._max_wait
        first = seen = len(self._waiting)
        while len(self._waiting) < self.max_batch_size and not self._closing:
            left = min(deadline - time.monotonic(), self._max_wait / 4)
            if left <= 0:
                return
            self._changed.wait(left)
            if len(self._waiting) == seen:
                self._alone = seen == first
                return
            seen = len(self._waiting)

    def _finished(self, job: Job) -> bool:
        """Whether a job is over; if it is, its waiter is told."""
        if job.done.done():
            return True
        if job.cancelled:
            job.done.cancel()
            self.metrics.cancelled += 1
            return True
        if job.wants_score or job.wants_tokens:
            return False
        job.finish_reason = job.finish_reason or "length"
        self.metrics.finish(job, time.monotonic() - job.submitted)
        if job.done.set_running_or_notify_cancel():
            job.done.set_result(job)
        return True

    def _extend(self, jobs: list[Job]) -> None:
        """Gives every job its next token."""
        if not jobs:
            return
        started = time.monotonic()
        try:
            last = [len(job.generated) + 1 >= job.max_tokens for job in jobs]
            logprobs = self._stepper.next_logprobs(jobs, [job.ids for job in jobs], last)  # [B, V]
        except Exception as error:  # noqa: BLE001 (a model's failure is the answer to its jobs, not the server's end)
            self._stepper.reset()
            self._failed(jobs, error, self._extend)
            return
        self.metrics.step(len(jobs), time.monotonic() - started)
        for temperature in {job.temperature for job in jobs}:
            rows = [row for row, job in enumerate(jobs) if job.temperature == temperature]
            generators = [job.generator or np.random.default_rng() for job in (jobs[row] for row in rows)]
            tokens = choose_tokens(logprobs[rows], temperature, generators)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                jobs[row].add(_position(logprobs[row], token, jobs[row].top))

    def _score(self, jobs: list[Job]) -> None:
        """Scores the prompts that are to be echoed with log-probabilities."""
        if not jobs:
            return
        started = time.monotonic()
        try:
            plain = [job for job in jobs if not job.top]
            scores = self.model.score([job.prompt[:1] for job in plain], [job.prompt[1:] for job in plain])
            for job, values in zip(plain, scores, strict=True):
                pairs = zip(job.prompt[1:], values.tolist(), strict=True)
                job.scored = [_first(job), *(Position(token, value, [], []) for token, value in pairs)]
            for job in (job for job in jobs if job.top):
                prefixes = [job.prompt[:cut] for cut in range(1, len(job.prompt))]
                rows = list(self.model.next_logprobs(prefixes)) if prefixes else []  # T - 1 times [V]
                following = zip(rows, job.prompt[1:], strict=True)
                job.scored = [_first(job), *(_position(row, token, job.top) for row, token in following)]
        except Exception as error:  # noqa: BLE001 (as above)
            self._failed(jobs, error, self._score)
            return
        self.metrics.step(len(jobs), time.monotonic() - started)

    def _failed(self, jobs: list[Job], error: Exception, again: object) -> None:
        """Tries each job of a failed batch alone, so that one bad prompt does not fail its neighbours."""
        if len(jobs) == 1:
            self.metrics.failed += 1
            _fail(jobs[0], error)
            return
        for job in jobs:
            assert callable(again)
            again([job])


def _embed(model: LanguageModel, contexts: list[list[int]], future: concurrent.futures.Future[np.ndarray]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(model.embed(contexts))
        except Exception as error:  # noqa: BLE001 (the model's failure is the answer)
            future.set_exception(error)


def _fail(job: Job, error: Exception) -> None:
    if not job.done.done() and job.done.set_running_or_notify_cancel():
        job.done.set_exception(error)


def _first(job: Job) -> Position:
    return Position(job.prompt[0], None, [], [])


def _position(logprobs: np.ndarray, token: int, top: int | None) -> Position:
    """Returns the position of a token under its distribution ``[V]``."""
    if not top:
        return Position(token, float(logprobs[token]), [], [])
    ids, values = top_k(logprobs[None], top)
    return Position(token, float(logprobs[token]), ids[0].tolist(), values[0].tolist())
