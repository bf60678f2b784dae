"""A cluster of real raylets on this machine, for a module's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra ray")
STORE = 80 * 2**20  # bytes of each node's object store, about the least that Ray takes
ROOT = Path(__file__).parents[2]


class Nodes:
    """A head without cores, and nodes of one core each that come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, name: str) -> None:
        self.nodes[name] = self.cluster.add_node(num_cpus=1, object_store_memory=STORE, node_name=name)

    def kill(self, name: str) -> None:
        """Kills a node with all its processes, as a machine that loses its power."""
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def kill_head(self) -> None:
        self.cluster.head_node.kill_gcs_server(check_alive=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two nodes, one and two."""
    with pytest.MonkeyPatch.context() as patch:
        here = [str(ROOT), str(ROOT / "tests" / "bench"), str(ROOT / "tests" / "scale")]
        patch.setenv("PYTHONPATH", os.pathsep.join([*here, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for path in here:
            patch.syspath_prepend(path)
        found = Nodes()
        try:
            for name in ("one", "two"):
                found.add(name)
            yield found
        finally:
            found.cluster.shutdown()
