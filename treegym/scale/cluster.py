"""Connecting to a Ray cluster, or starting Ray on this machine; every way it can fail is one sentence."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from treegym.checks import number, whole
from treegym.errors import BackendError, ConfigError, require

__all__ = [
    "Room",
    "add_ray_options",
    "capacity",
    "check_room",
    "connected",
    "head_answers",
    "held_by",
    "node_names",
    "room_of",
]

TIMEOUT = 5.0  # seconds the head of a cluster may take to answer
RAY_PORT = 6379


@dataclass(frozen=True, kw_only=True)
class Room:
    """What one worker takes up of a node."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0  # gigabytes

    def resources(self) -> dict[str, float]:
        """Returns the same by Ray's names."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory * 2**30}
        return {name: amount for name, amount in wanted.items() if amount > 0}


def add_ray_options(parser: Any) -> None:
    """Adds the options of commands that can work on a cluster."""
    group = parser.add_argument_group("on a Ray cluster")
    group.add_argument(
        "--ray", metavar="ADDRESS", help="HOST:PORT of a cluster, auto (RAY_ADDRESS), or local: Ray on this machine"
    )
    group.add_argument("--cpus", type=float, default=1.0, help="cores that one worker takes (default: %(default)s)")
    group.add_argument("--gpus", type=float, default=0.0, help="GPUs that one worker takes (default: none)")
    group.add_argument("--memory", type=float, default=0.0, metavar="GB", help="memory that one worker takes")
    group.add_argument(
        "--patience", type=float, default=3600.0, metavar="SECONDS",
        help="a job without an answer for so long is given to another worker (default: %(default)g)",
    )  # fmt: skip


def room_of(args: Any) -> Room:
    """Returns what the options ask for, checked."""
    number("--patience", args.patience, low=1.0, unit="seconds")
    if args.workers is not None:
        whole("--workers", args.workers, low=1)
    amounts = {name: number(f"--{name}", getattr(args, name), low=0.0) for name in ("cpus", "gpus", "memory")}
    if not any(amounts.values()):
        raise ConfigError("--cpus, --gpus and --memory are all 0; a worker takes something of its node")
    return Room(**amounts)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yields the module `ray`, connected; at the end the connection, or the Ray that was started here, is closed.

    Args:
        address: ``local`` starts Ray on this machine, ``auto`` takes RAY_ADDRESS, anything else is HOST:PORT.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody unless it is asked for
    ray = require("ray", extra="ray", purpose="working on a cluster")
    where = _address(address)
    with redirect_stdout(sys.stderr):  # Ray tells there of lost nodes; standard output is for what a command answers
        try:
            with _told(address):
                quiet = {"include_dashboard": False} if address == "local" else {}
                ray.init(where, log_to_driver=False, logging_level="CRITICAL", **quiet)
            yield ray
        finally:
            ray.shutdown()  # also of what it began before it failed


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Makes one sentence of what goes wrong when Ray is joined or started."""
    try:
        yield
    except (ConnectionError, OSError, TimeoutError) as error:
        raise BackendError(f"Ray at {address} could not be reached: {_first_line(error)}") from error
    except RuntimeError as error:
        said = " ".join(str(error).split())
        if "ersion mismatch" in said:
            raise ConfigError(f"the cluster at {address} runs another Ray or Python than we do: {said}") from error
        raise BackendError(f"Ray at {address} could not be joined: {_first_line(error)}") from error
    except Exception as error:  # Ray has none of its own for a start that took too long
        raise BackendError(f"Ray at {address} did not start: {_first_line(error)}") from error


def _address(address: str) -> str:
    if address == "local":
        return address
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
        if not address:
            raise ConfigError(
                "--ray auto takes the address from RAY_ADDRESS, which is not set; give HOST:PORT or local"
            )
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"the address of a Ray cluster is {address!r}; expected HOST:PORT, which `ray start --head` prints "
            f"(usually port {RAY_PORT}), or local"
        )
    if not head_answers(address):  # Ray itself would go on trying for minutes
        raise BackendError(f"nobody answers at {address}; start a cluster there with `ray start --head --port {port}`")
    return address


def head_answers(address: str) -> bool:
    """Returns whether the head of a cluster takes connections."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=TIMEOUT).close()
    except OSError:
        return False
    return True


def put(ray: Any, value: Any) -> Any:
    """Puts a value into the object store, from where every node may fetch it; returns Ray's reference."""
    try:
        return ray.put(value)
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
        raise BackendError(
            f"Ray's object store on this machine is full: {_first_line(error)}; start Ray with more "
            "(`ray start --object-store-memory BYTES`), or give fewer prompts per shard"
        ) from error


def node_names(ray: Any) -> dict[str, str]:
    """Returns what each node is called, by Ray's id: the name it was given, else the machine's and its address."""
    names = {}
    for node in ray.nodes():
        given, address = node["NodeName"], node["NodeManagerAddress"]
        names[node["NodeID"]] = given if given != address else f"{node['NodeManagerHostname']} ({address})"
    return names


def held_by(node: Any, room: Room) -> int:
    """Returns how many workers of this size a node can hold, as Ray describes it."""
    return min(
        (int(node["Resources"].get(name, 0.0) // amount) for name, amount in room.resources().items()), default=0
    )


def capacity(ray: Any, room: Room, on: Callable[[str], bool] | None = None) -> int:
    """Returns how many workers of this size the nodes that are there can hold, of all or of those that may be used."""
    counts = {node["NodeID"]: held_by(node, room) for node in ray.nodes() if node["Alive"]}
    return sum(count for node, count in counts.items() if count and (on is None or on(node)))


def check_room(ray: Any, room: Room) -> None:
    """Raises ConfigError, which says of what there is too little, where no node can hold one worker."""
    if capacity(ray, room):
        return
    most = {name: max((n["Resources"].get(name, 0.0) for n in ray.nodes() if n["Alive"]), default=0.0)
            for name in room.resources()}  # fmt: skip
    short = [f"{_amount(name, amount)} of the {_amount(name, room.resources()[name])} it asks for"
             for name, amount in most.items() if amount < room.resources()[name]]  # fmt: skip
    what = ", ".join(short) or "all it asks for, though no one node has all at once"
    raise ConfigError(f"no node of the cluster can hold a worker: the largest has {what}; ask for less, or add nodes")


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GB of memory" if name == "memory" else f"{amount:g} {name}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
