"""What a cluster can be wrong with, each told in one sentence (addresses, resources: test_crew.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treegym.__main__ import build_parser
from treegym.errors import BackendError, ConfigError
from treegym.scale import crew
from treegym.scale.cluster import connected, put
from treegym.scale.crew import Crew, work

pytestmark = pytest.mark.ray


def test_a_worker_without_the_models_files_is_told_with_its_node(nodes: Any) -> None:
    args = build_parser("grow").parse_args(["grow", "--primary", "/only/here/model", "--prompts", "bundled"])
    options = {name: value for name, value in vars(args).items() if not callable(value)}
    setup = {"args": options, "bundled": True, "models": {"primary": {"fingerprint": ""}, "teacher_models": []}}
    with (
        connected(nodes.address) as ray,
        pytest.raises(BackendError, match=r"node (one|two) could not begin: .*/only/here/model"),
    ):
        list(work(ray, "treegym.commands.grow_cluster:grower", setup, [[]]))


def test_answers_under_way_are_bounded_by_memory(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand, counts = Crew._hand, []

    def noted(self: Crew, worker: Any, job: int, jobs: Any) -> None:
        hand(self, worker, job, jobs)
        counts.append(sum(one.job is not None for one in self._workers))

    monkeypatch.setattr(Crew, "_hand", noted)
    jobs = [f"large{number}" for number in range(6)]  # 6 MB each
    monkeypatch.setattr(crew, "available_memory", lambda: 2**62)
    with connected(nodes.address) as ray:
        assert len(list(work(ray, "odd_jobs:make", str(tmp_path), jobs))) == 6
    assert max(counts) == 2  # a job for each of the two workers
    monkeypatch.setattr(crew, "available_memory", lambda: 20 * 2**20)  # half of it holds one answer, and not two
    with connected(nodes.address) as ray:
        known = work(ray, "odd_jobs:make", str(tmp_path), jobs)
        next(known)
        counts.clear()
        assert len(list(known)) == 5
    assert set(counts[1:]) <= {1}


def test_another_version_of_ray_and_a_full_store_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray as module
    from ray.cluster_utils import Cluster
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

    # Ray takes the disk when the store is full, so it is full when the disk is, too: here at a hundredth
    config = {"local_fs_capacity_threshold": 0.01, "local_fs_monitor_interval_ms": 100}
    store = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False, "_system_config": config}
    cluster = Cluster(initialize_head=True, head_node_args=store)
    try:
        with connected(cluster.address) as ray:
            with pytest.raises(BackendError, match=r"object store on this machine is full: .*--object-store-memory"):
                put(ray, b"x" * (120 * 2**20))
            where: dict[str, Any] = {"namespace": b"cluster"}
            known = json.loads(_internal_kv_get(b"CLUSTER_METADATA", **where))
            assert known["ray_version"] == module.__version__
            text = json.dumps({**known, "ray_version": "2.9.3"}).encode()
            _internal_kv_put(b"CLUSTER_METADATA", text, overwrite=True, **where)
        with (
            pytest.raises(ConfigError, match=r"runs another Ray or Python than we do: .*2\.9\.3"),
            connected(cluster.address),
        ):
            pass
    finally:
        cluster.shutdown()
