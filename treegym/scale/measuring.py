"""Candidates of `treegym optimize` measured on a cluster: each worker pinned and alone on its cores, kinds kept apart.

The search runs where the command was given, once for each kind of machine; only measurements happen elsewhere. So a
module gets one recommendation for every kind, and no time of one kind is held against a time of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from treegym.errors import BackendError, ConfigError
from treegym.optimize import worker
from treegym.optimize.candidates import Candidate, copied
from treegym.optimize.config import CoreConfig
from treegym.optimize.hardware import Kind, kind_here
from treegym.optimize.targets import load_function, load_module
from treegym.optimize.trials import Elsewhere, Trials
from treegym.scale.cluster import Room, capacity, check_room, held_by, node_names
from treegym.scale.crew import hired
from treegym.scale.pinning import pin

__all__ = ["Kinds", "measurer", "on_kind", "prepare"]


class Kinds:
    """Which node is of which kind; each is asked once, when it is first looked at."""

    def __init__(self, ray: Any, room: Room) -> None:
        check_room(ray, room)
        self._ray, self._room = ray, room
        self._known: dict[str, Kind] = {}

    def of(self, node: str) -> Kind:
        """Returns the kind of a node, told by Ray's id."""
        if node not in self._known:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            here = NodeAffinitySchedulingStrategy(node, soft=False)
            asked = self._ray.remote(kind_here).options(num_cpus=0, scheduling_strategy=here).remote()
            try:
                self._known[node] = self._ray.get(asked, timeout=120)
            except self._ray.exceptions.RayError as error:
                name = node_names(self._ray).get(node, node)
                raise BackendError(f"node {name} does not say what kind of machine it is: {error}") from error
        return self._known[node]

    def all(self) -> list[Kind]:
        """Returns the kinds that have room for a worker, in the order of their names."""
        nodes = [n["NodeID"] for n in self._ray.nodes() if n["Alive"] and held_by(n, self._room)]
        return sorted({self.of(node) for node in nodes}, key=lambda kind: (kind.hardware, kind.versions))

    def workers(self, kind: Kind) -> int:
        """Returns how many workers the nodes of a kind can hold."""
        return capacity(self._ray, self._room, lambda node: self.of(node) == kind)


@contextmanager
def on_kind(
    ray: Any, kinds: Kinds, kind: Kind, setup: Mapping[str, Any], crew: Mapping[str, Any]
) -> Iterator[Elsewhere]:
    """Yields what measures candidates on the nodes of a kind.

    Args:
        ray: the connected module.
        kinds: of the nodes.
        kind: the one to measure on.
        setup: what `measurer` takes, but for the kind.
        crew: room, workers and patience, as for `treegym.scale.crew.hired`.
    """
    told = {**setup, "kind": kind, "cores": int(crew["room"].cpus)}
    maker = "treegym.scale.measuring:measurer"
    with hired(ray, maker, told, on=lambda node: kinds.of(node) == kind, **crew) as workers:

        def elsewhere(candidates: Sequence[Candidate], seed: int, limits: worker.Limits) -> list[worker.WorkResult]:
            jobs = [(one.strategies, seed, limits.seconds) for one in candidates]
            outcomes: dict[int, worker.WorkResult] = {}
            for answer in workers.answers(jobs):
                outcomes[answer.job] = worker.WorkResult(None, answer.failure) if answer.failure else answer.value
            return [outcomes[number] for number in range(len(jobs))]

        yield elsewhere


def prepare(told: Mapping[str, Any]) -> None:
    """Checks on a node that it is of the kind it was taken for, and pins this process to cores of its own."""
    import torch

    if (found := kind_here()) != told["kind"]:
        raise ConfigError(f"this machine is {found} now; it was {told['kind']}")
    if told["cores"] < 1:
        raise ConfigError("a worker that measures needs whole cores of its own; give --cpus at least 1")
    pin(told["cores"])
    torch.set_num_threads(1)


def measurer(told: Mapping[str, Any]) -> Callable[[tuple[Sequence[str], int, float]], worker.WorkResult]:
    """Returns what a worker does: strategies are applied to the module, which it built here, and measured."""
    prepare(told)
    module, source = load_module(told["target"], told["inputs"])
    module.load_state_dict(told["state"])  # those of the command: a build function may draw them anew
    task = load_function(told["task"]) if told["task"] else None
    trials = Trials(copied(module), source, CoreConfig.of(told["config"]), told["weights"], task)

    def measure(job: tuple[Sequence[str], int, float]) -> worker.WorkResult:
        strategies, seed, seconds = job
        limits = replace(trials.limits, seconds=seconds)
        return trials.outcomes([Candidate(tuple(strategies))], seed, limits)[0]

    return measure


def config_of(config: CoreConfig) -> dict[str, Any]:
    """Returns the settings as data that workers take."""
    return {**asdict(config), "cache_path": None, "history_path": None}
