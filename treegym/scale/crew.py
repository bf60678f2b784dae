"""The workers of a cluster: each does one job at a time, and what a lost or stuck one had in hand goes to another.

A worker is a Ray actor. Ray decides where it lives and tells when it is lost; jobs are handed out one by one, so that
what is under way is bounded by the workers and by memory, and which node has which job is always known. Jobs must give
the same answer wherever and however often they are done: then losing a node costs time and nothing else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from treegym.errors import BackendError, TreeGymError
from treegym.models.local.memory import available_memory
from treegym.registry import resolve
from treegym.scale.cluster import Room, capacity, check_room, head_answers, held_by, node_names, put

__all__ = ["Answer", "Crew", "hired", "work"]

ATTEMPTS = 4  # workers that a job may take down or leave without an answer before it is given up
TICK = 0.5  # seconds between looks at the clock
SURVEY = 2.0  # seconds between looks at the cluster


class Answer(NamedTuple):
    """What became of a job."""

    job: int  # its place among the jobs
    value: Any
    failure: str = ""  # one sentence with the node's name, where it failed for good
    node: str = ""


def work(
    ray: Any,
    maker: str,
    setup: Any,
    jobs: Sequence[Any],
    *,
    room: Room | None = None,
    workers: int | None = None,
    patience: float = 3600.0,
) -> Iterator[Answer]:
    """Yields the answer to every job as it comes.

    Args:
        ray: the connected module, from `treegym.scale.cluster.connected`.
        maker: the import path of a function that takes `setup` and returns what does a job.
        setup: what every worker is told once, such as which models to open.
        jobs: what there is to do.
        room: what a worker takes up of its node.
        workers: how many at most; by default as many as fit. Nodes that join later are used.
        patience: seconds after which a worker is taken to be stuck; doubled each time for a job that was given away.
    """
    with hired(ray, maker, setup, room=room, workers=workers, patience=patience) as crew:
        yield from crew.answers(jobs)


@contextmanager
def hired(
    ray: Any,
    maker: str,
    setup: Any,
    *,
    room: Room | None = None,
    workers: int | None = None,
    patience: float = 3600.0,
    on: Callable[[str], bool] | None = None,
) -> Iterator[Crew]:
    """Yields a crew that is given jobs again and again; its workers stay. As `work`, and with one thing more.

    Args:
        on: whether a node, told by Ray's id, may be used; None: all may.
    """
    crew = Crew(ray, maker, setup, room or Room(), patience, workers, on)
    try:
        yield crew
    finally:
        crew.dismiss()


class _Actor:
    """What lives on a node. Failures of jobs come back as values: an exception means that the worker is lost."""

    def prepare(self, maker: str, setup: Any) -> tuple[str, int, str]:
        """Makes what does the jobs; returns the node, the process and what went wrong."""
        import os

        import ray

        node = ray.get_runtime_context().get_node_id()
        try:
            self._do = resolve(maker, "what a worker does")(setup)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user is told which node it was
            return node, os.getpid(), _sentence(error)
        return node, os.getpid(), ""

    def do(self, job: Any) -> tuple[Any, str]:
        """Returns the answer to a job, and what went wrong."""
        try:
            return self._do(job), ""
        except Exception as error:  # noqa: BLE001 - the same
            return None, _sentence(error)


def _sentence(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return first if isinstance(error, TreeGymError) else f"{type(error).__name__}: {first}"


@dataclass
class _Worker:
    actor: Any
    reply: Any  # what Ray will answer to the last call
    since: float
    place: str = ""  # the node it was sent to; "": where Ray found room
    node: str = ""  # what its node is called; "" until it is ready
    job: int | None = None


class Crew:
    """Workers and the jobs they have in hand."""

    def __init__(
        self, ray: Any, maker: str, setup: Any, room: Room, patience: float, most: int | None,
        on: Callable[[str], bool] | None,
    ) -> None:  # fmt: skip
        check_room(ray, room)
        self._most, self._on = most, on
        self._ray, self._maker, self._room, self._patience = ray, maker, room, patience
        self._setup = put(ray, setup)
        self._largest = 0  # bytes of the largest answer so far
        self._workers: list[_Worker] = []
        self._tries: dict[int, int] = {}
        self._lost_unready = 0
        self._surveyed = -SURVEY
        self._names: dict[str, str] = {}
        self._head = ray.get_runtime_context().gcs_address

    def answers(self, jobs: Sequence[Any]) -> Iterator[Answer]:
        """Yields the answer to every job as it comes."""
        waiting = deque(range(len(jobs)))
        left, self._tries = len(jobs), {}
        while left:
            self._hire(left if self._most is None else min(self._most, left))
            for worker in self._workers:
                if worker.node and worker.job is None and waiting and self._fits():
                    self._hand(worker, waiting.popleft(), jobs)
            for answer in self._replies(waiting):
                left -= 1
                yield answer

    def _hire(self, most: int) -> None:
        """Starts workers up to what the cluster holds now, looking at it every few seconds."""
        now = time.monotonic()
        if now - self._surveyed < SURVEY:
            return
        if not head_answers(self._head):
            raise BackendError(
                f"the head of the Ray cluster at {self._head} no longer answers; what was finished is kept: start the "
                "cluster again and give the same command"
            )
        self._surveyed = now
        check_room(self._ray, self._room)
        self._names |= node_names(self._ray)
        wanted = min(most, capacity(self._ray, self._room, self._on))
        if not wanted and not self._workers:
            raise BackendError("no node of this kind is left in the cluster; what was finished is kept")
        options: dict[str, Any] = {"num_cpus": self._room.cpus, "num_gpus": self._room.gpus, "max_restarts": 0}
        if self._room.memory:
            options["memory"] = int(self._room.memory * 2**30)
        places = self._places()
        while len(self._workers) < wanted:
            place = next(places, "")
            where = {} if self._on is None else {"scheduling_strategy": self._at(place)}
            actor = self._ray.remote(_Actor).options(**options, **where).remote()
            self._workers.append(_Worker(actor, actor.prepare.remote(self._maker, self._setup), now, place=place))

    def _places(self) -> Iterator[str]:
        """Yields the nodes that may be used, each as often as it has room for one worker more."""
        on = self._on
        for node in self._ray.nodes() if on is not None else []:
            if on is not None and node["Alive"] and (fits := held_by(node, self._room)) and on(node["NodeID"]):
                there = sum(worker.place == node["NodeID"] for worker in self._workers)
                yield from [node["NodeID"]] * max(0, fits - there)

    def _at(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)

    def _fits(self) -> bool:
        """Whether the answers under way and one more fit into half of the memory that is left here, as large as any."""
        count = sum(worker.job is not None for worker in self._workers)
        free = available_memory()
        return not count or free is None or (count + 1) * self._largest <= free // 2

    def _hand(self, worker: _Worker, job: int, jobs: Sequence[Any]) -> None:
        worker.job, worker.since = job, time.monotonic()
        worker.reply = worker.actor.do.remote(jobs[job])

    def _replies(self, waiting: deque[int]) -> list[Answer]:
        """Waits a moment for replies; returns the answers among them, and puts back what has to be done again."""
        busy = {worker.reply: worker for worker in self._workers if not worker.node or worker.job is not None}
        if not busy:
            time.sleep(TICK)  # every worker was lost at once
            return []
        ready, _ = self._ray.wait(list(busy), timeout=TICK)
        found = [answer for reply in ready if (answer := self._received(busy[reply], waiting)) is not None]
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.job is not None and now - worker.since > self._patience * 2 ** self._tries.get(worker.job, 0):
                gone = self._lost(worker, waiting, f"gave no answer for {now - worker.since:.0f} s")
                found += [] if gone is None else [gone]
        return found

    def _received(self, worker: _Worker, waiting: deque[int]) -> Answer | None:
        size = self._ray.experimental.get_object_locations([worker.reply]).get(worker.reply, {}).get("object_size")
        self._largest = max(self._largest, size or 0)
        try:
            reply = self._ray.get(worker.reply)
        except self._ray.exceptions.RayError as error:
            return self._lost(worker, waiting, _reason(error))
        if not worker.node:
            node, _, failure = reply
            worker.node = self._names.get(node, node)
            if failure:
                raise BackendError(f"a worker on node {worker.node} could not begin: {failure}")
            return None
        value, failure = reply
        job, worker.job = worker.job, None
        assert job is not None
        return Answer(job, value, f"on node {worker.node}: {failure}" if failure else "", worker.node)

    def _lost(self, worker: _Worker, waiting: deque[int], reason: str) -> Answer | None:
        """Lets a worker go; its job is the next to be handed out, unless it was lost too often."""
        self._workers.remove(worker)
        self._ray.kill(worker.actor)
        self._surveyed = -SURVEY
        if worker.job is None:
            self._lost_unready += 1
            if self._lost_unready >= ATTEMPTS * max(1, capacity(self._ray, self._room, self._on)):
                raise BackendError(f"workers are lost before they can begin, {self._lost_unready} by now: {reason}")
            return None
        tries = self._tries[worker.job] = self._tries.get(worker.job, 0) + 1
        if tries < ATTEMPTS:
            waiting.appendleft(worker.job)
            return None
        failure = f"{tries} workers were lost over it, the last on node {worker.node}: {reason}"
        return Answer(worker.job, None, failure, worker.node)

    def dismiss(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker.actor)


def _reason(error: Exception) -> str:
    """Returns why a worker was lost: the end of Ray's account, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = lines[-1].partition("Worker exit detail: ")[2] or lines[-1] if lines else type(error).__name__
    return detail.partition(" Some common causes")[0]
