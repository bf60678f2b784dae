from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from treegym.errors import BackendError, ConfigError
from treegym.scale.cluster import Room, connected
from treegym.scale.crew import Answer, work

pytestmark = pytest.mark.ray


def _all(nodes: Any, jobs: list[str], folder: Path, **options: object) -> dict[str, Answer]:
    with connected(nodes.address) as ray:
        return {jobs[a.job]: a for a in work(ray, "odd_jobs:make", str(folder), jobs, **options)}


def test_jobs_that_fail_kill_or_stop_their_worker_cost_no_other_job(nodes: Any, tmp_path: Path) -> None:
    jobs = ["a", "fails", "kills", "stops", "b"]
    answers = _all(nodes, jobs, tmp_path, patience=2.0)
    assert {job: answers[job].value for job in ("a", "stops", "b")} == {"a": "A", "stops": "STOPS", "b": "B"}
    assert answers["fails"].failure in {
        f"on node {name}: ValueError: there is no such thing" for name in ("one", "two")
    }
    assert answers["kills"].failure.startswith("4 workers were lost over it, the last on node ")


def test_what_a_lost_node_had_in_hand_is_done_elsewhere(nodes: Any, tmp_path: Path) -> None:
    jobs = [f"waits{number}" for number in range(6)]
    answers = {}
    with connected(nodes.address) as ray:
        for answer in work(ray, "odd_jobs:make", str(tmp_path), jobs):
            answers[jobs[answer.job]] = answer
            if len(answers) == 1:  # the other node is in the middle of its job, or this one of its second
                nodes.kill("two")
                nodes.add("three")
    assert {job: answer.value for job, answer in answers.items()} == {job: job.upper() for job in jobs}
    assert {answer.node for answer in answers.values()} >= {"one", "three"}  # who joins later works, too


def test_more_than_any_node_has_is_refused(nodes: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the largest has 1 CPU of the 2 CPU it asks for, 0 GPU of the 1 GPU"):
        _all(nodes, ["a"], tmp_path, room=Room(cpus=2, gpus=1))


def test_a_worker_that_cannot_begin_names_its_node(nodes: Any) -> None:
    with connected(nodes.address) as ray, pytest.raises(BackendError, match=r"node \w+ could not begin: .*no 'lost'"):
        list(work(ray, "odd_jobs:lost", None, ["a"]))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "nobody answers at 127.0.0.1:1"),
        ("ray://here", "expected HOST:PORT"),
        ("here:99999", "expected HOST:PORT"),
        ("auto", "RAY_ADDRESS, which is not set"),
    ],
)
def test_addresses_that_lead_nowhere(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises((BackendError, ConfigError), match=said), connected(address):
        pass
