"""Shares of work on a cluster: of a rollout (`treegym iterate`), of a league or a population (one member each).

What all shares of a rollout have in common, the weights, is put into the cluster once and fetched once by every node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from treegym.errors import BackendError
from treegym.iterate.shares import Doer, Staff, local_staff
from treegym.registry import resolve
from treegym.scale.cluster import check_room, connected, put, room_of
from treegym.scale.crew import hired

__all__ = ["sharer", "staff_for", "staff_of"]


@contextmanager
def staff_for(args: Any) -> Iterator[Staff]:
    """Yields who does shares as the options of a command say: this process, or a cluster."""
    if args.ray is None:
        yield local_staff
        return
    room = room_of(args)
    with connected(args.ray) as ray:
        check_room(ray, room)
        yield staff_of(ray, {"room": room, "workers": args.workers, "patience": args.patience})


def staff_of(ray: Any, crew: Mapping[str, Any]) -> Staff:
    """Returns who does shares on a cluster; room, workers and patience as for `treegym.scale.crew.hired`."""

    @contextmanager
    def staff(maker: str, setup: Mapping[str, Any]) -> Iterator[Doer]:
        with hired(ray, "treegym.scale.rollouts:sharer", {"maker": maker, "setup": setup}, **crew) as workers:

            def do(jobs: Sequence[Any], common: Any) -> list[Any]:
                held = put(ray, common)
                answers = {}
                for answer in workers.answers([(job, [held]) for job in jobs]):
                    if answer.failure:
                        raise BackendError(f"a share of the episodes could not be played: {answer.failure}")
                    answers[answer.job] = answer.value
                return [answers[number] for number in range(len(jobs))]

            yield do

    return staff


def sharer(told: Mapping[str, Any]) -> Any:
    """Returns what a worker does: a share, with what all shares have in common."""
    import ray

    do = resolve(told["maker"], "what does shares")(told["setup"])

    def share(job: tuple[Any, list[Any]]) -> Any:
        own, held = job
        return do((own, ray.get(held[0])))

    return share
