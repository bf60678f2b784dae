"""A cluster of real raylets on this machine, for a module's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from treegym.bench.results import ResultFolder

pytest.importorskip("ray", reason="needs the extra ray")
STORE = 80 * 2**20  # bytes of each node's object store, about the least that Ray takes
ROOT = Path(__file__).parents[2]


class Nodes:
    """A head without cores, and nodes of one core each that come and go; at first one and two."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: dict[str, Any] = {}
        for name in ("one", "two"):
            self.add(name)

    def start_anew(self) -> None:
        """Starts another cluster in the place of one that lost its head."""
        self.cluster.shutdown()
        self._start()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, name: str, **options: Any) -> None:
        self.nodes[name] = self.cluster.add_node(num_cpus=1, object_store_memory=STORE, node_name=name, **options)

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
            yield found
        finally:
            found.cluster.shutdown()


class Bench:
    """A suite of little work, run by the command, and what its runs came to."""

    def __init__(self, folder: Path, *, seeds: int, agents: str) -> None:
        self.path = folder / "little.toml"
        kwargs = {"Chance": "kwargs = { slow = 0.2 }"}
        self.path.write_text(
            f"""
name = "little"
seeds = {list(range(seeds))}
budget = {{ env_steps = 2000 }}
checkpoints = 2
[[envs]]
name = "tiny"
id = "TokenTree-v0"
kwargs = {{ tree = "synthetic:roots=60,depth=4,branching=3,difficulty=0.2,seed=0" }}
num_envs = 16
"""
            + "".join(
                f'[[agents]]\nname = "{name}"\nagent = "contestants:{name}"\n{kwargs.get(name, "")}\n'
                for name in agents.split()
            )
        )

    def start(self, out: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "treegym", "bench", "--suite", str(self.path), "--out", str(out), "--json"]
        return subprocess.Popen(
            [*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Returns exit code, output and messages of a command that has ended or soon will."""
        out, err = process.communicate(timeout=280)
        return process.returncode, out, err

    @staticmethod
    def outcomes(folder: Path) -> dict[str, Any]:
        """Returns everything about the runs that does not depend on the clock, and the bytes of their episodes."""
        bytes_of = {path.name: path.read_bytes() for path in (folder / "runs").glob("*.gz")}
        runs = {
            summary["agent"] + str(summary["seed"]): (
                summary["episodes"], summary["training"], summary["final"], summary["fingerprint"], summary["samples"],
                [{k: v for k, v in point.items() if k != "cpu_seconds"} for point in summary["curve"]],
            )
            for summary in ResultFolder(folder).summaries()
        }  # fmt: skip
        return {**bytes_of, **runs}


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    """Makes a suite, given the number of seeds and the names of its agents."""
    return lambda **what: Bench(tmp_path, **what)
