from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treegym.bench.leaderboard import leaderboard_of
from treegym.bench.results import ResultFolder
from treegym.bench.runner import run_suite
from treegym.bench.suite import parse_suite
from treegym.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("contestants_on_path")
ROOT = Path(__file__).parents[2]


def _toml(table: dict[str, Any], path: Path) -> Path:
    """Writes a suite as TOML; JSON strings, numbers and arrays are TOML values as they are."""

    def value(x: Any) -> str:
        if isinstance(x, dict):
            return "{ " + ", ".join(f"{k} = {value(v)}" for k, v in x.items()) + " }"
        if isinstance(x, list):
            return "[" + ", ".join(map(value, x)) + "]"
        return json.dumps(x)

    path.write_text("\n".join(f"{key} = {value(x)}" for key, x in table.items()))
    return path


def _command(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "treegym", "bench", *map(str, arguments)]


def _bench(*arguments: Any, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=200, preexec_fn=limit, check=False
    )


def _outcomes(folder: Path) -> dict[str, Any]:
    """Returns everything about the runs that does not depend on the clock."""
    return {
        summary["agent"] + str(summary["seed"]): (
            summary["episodes"], summary["training"], summary["final"], summary["fingerprint"],
            [{k: v for k, v in point.items() if k != "cpu_seconds"} for point in summary["curve"]],
            summary["cost"]["env_steps"], summary["cost"]["forward_passes"],
        )
        for summary in ResultFolder(folder).summaries()
    }  # fmt: skip


def test_all_runs_finish_and_a_second_call_runs_nothing(tmp_path: Path, small_table: dict[str, Any]) -> None:
    suite = parse_suite(small_table, where="test")
    first = run_suite(suite, tmp_path / "out", workers=2)
    assert (first.finished, first.kept, first.failed) == (6, 0, {})
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "runs").iterdir()}
    assert len(times) == 14  # summary and evaluation of six runs, training of the two that learn
    second = run_suite(suite, tmp_path / "out", workers=2)
    assert (second.finished, second.kept) == (0, 6)
    assert times == {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "runs").iterdir()}
    board = leaderboard_of(tmp_path / "out")
    assert {row["name"] for row in board["agents"]} == {"Chance", "Prior", "Learner"}
    assert board["references"]["tiny"]["optimum"] == 1.0
    learner = next(row for row in board["agents"] if row["name"] == "Learner")
    assert learner["cost"]["env_steps"] >= 2000  # the budget, and at most one step of the 16 lanes more
    assert learner["cost"]["env_steps"] < 2000 + 16
    assert len(learner["envs"]["tiny"]["curve"]) == 3


def test_killed_and_started_again_the_results_are_those_of_an_uninterrupted_run(
    tmp_path: Path, small_table: dict[str, Any]
) -> None:
    small_table["agents"][0]["kwargs"] = {"slow": 0.05}
    small_table["seeds"] = [0, 1, 2, 3]
    suite = _toml(small_table, tmp_path / "suite.toml")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert _bench("--suite", suite, "--out", whole, "--workers", 2).returncode == 0
    for finished in (1, 5):  # killed twice, at different points
        process = subprocess.Popen(
            _command("--suite", suite, "--out", cut, "--workers", 2), cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while len(list((cut / "runs").glob("*.json"))) < finished and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.wait()
        time.sleep(0.2)  # workers notice that nobody listens any more and end
    before = {file: file.stat().st_mtime_ns for file in (cut / "runs").glob("*.json")}
    assert 5 <= len(before) < 12
    assert _bench("--suite", suite, "--out", cut).returncode == 0
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    assert _outcomes(cut) == _outcomes(whole)
    assert not list((cut / "runs").glob("*.tmp*"))


def test_interrupt_ends_with_130_and_keeps_finished_runs(tmp_path: Path, small_table: dict[str, Any]) -> None:
    small_table["agents"][0]["kwargs"] = {"slow": 5.0}
    suite = _toml(small_table, tmp_path / "suite.toml")
    out = tmp_path / "out"
    process = subprocess.Popen(
        _command("--suite", suite, "--out", out, "--workers", 2), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((out / "runs").glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip() == "treegym: interrupted; what was finished is kept"
    assert list((out / "runs").glob("*.json"))


def test_failing_and_dying_agents_cost_their_own_runs_only(tmp_path: Path, small_table: dict[str, Any]) -> None:
    small_table["agents"] += [{"name": name, "agent": f"contestants:{name}"} for name in ("Failing", "Dying")]
    small_table["agents"].append({"name": "Absent", "agent": "contestants:Nobody"})
    outcome = run_suite(parse_suite(small_table, where="test"), tmp_path / "out", workers=2)
    assert outcome.finished == 6
    assert outcome.failed["tiny--failing--0"] == "RuntimeError: this agent is broken"
    assert "SIGKILL" in outcome.failed["tiny--dying--1"]
    assert "cannot be imported" in outcome.failed["tiny--absent--0"]
    board = leaderboard_of(tmp_path / "out")
    assert any("Not ranked" in warning and "Dying" in warning for warning in board["warnings"])


def test_a_full_disk_ends_with_one_sentence(tmp_path: Path, small_table: dict[str, Any]) -> None:
    suite = _toml(small_table, tmp_path / "suite.toml")
    enough = 2000  # bytes a file may have: the suite fits, a run's summary does not

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (enough, enough))

    result = _bench("--suite", suite, "--out", tmp_path / "out", limit=limit)
    assert result.returncode == 1
    assert "could not be saved: File too large" in result.stderr
    assert "0 finished runs are kept" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "out" / "runs").glob(".*tmp"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agents": [{"name": "x", "agent": "ppoo"}]}, "unknown agent 'ppoo'"),
        ({"agents": [{"name": "x", "agent": "no_such_module:Agent"}]}, "no_such_module"),
        ({"envs": [{"name": "x", "id": "TokenTre-v0"}]}, "Did you mean 'TokenTree-v0'"),
        ({"envs": [{"name": "x", "id": "broken_plugin:X-v0"}]}, "broken_plugin failed to import: NameError"),
    ],
)
def test_unknown_names_end_before_anything_runs(
    tmp_path: Path, small_table: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    suite = _toml({**small_table, **change}, tmp_path / "suite.toml")
    result = _bench("--suite", suite, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_plugin_that_fails_to_import_is_one_sentence_however_many_runs_it_costs(
    tmp_path: Path, small_table: dict[str, Any]
) -> None:
    small_table["agents"][2] = {"name": "Broken", "agent": "broken_plugin:Agent"}
    suite = _toml(small_table, tmp_path / "suite.toml")
    result = _bench("--suite", suite, "--out", tmp_path / "out", "--json")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "2 runs (tiny--broken--0, ...) failed" in result.stderr
    assert "failed to import: NameError: name 'this' is not defined" in result.stderr
    assert len(json.loads(result.stdout)["agents"]) == 2


def test_results_of_another_version_or_suite_are_refused(tmp_path: Path, small_table: dict[str, Any]) -> None:
    suite = parse_suite(small_table, where="test")
    folder = ResultFolder(tmp_path / "out")
    folder.prepare(suite)
    with pytest.raises(ConfigError, match="with other settings"):
        folder.prepare(parse_suite({**small_table, "checkpoints": 3}, where="test"))
    marker = folder.path / "suite.json"
    table = json.loads(marker.read_text())
    marker.write_text(json.dumps({**table, "version": "0.0.1"}))
    with pytest.raises(ConfigError, match=r"holds results of treegym 0\.0\.1"):
        folder.prepare(suite)
    marker.write_text(json.dumps({**table, "suite": {**table["suite"], "format": 99}}))
    with pytest.raises(DataError, match="format 99"):
        leaderboard_of(folder.path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is not a result folder"):
        ResultFolder(tmp_path / "other").prepare(suite)
    with pytest.raises(DataError, match="not a result folder"):
        leaderboard_of(tmp_path / "other")


def test_worker_ends_when_nobody_listens(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "treegym.bench.worker"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(timeout=30) == 0
