"""One writer for all trackers; what it wrote is read back from each, offline."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from treegym.errors import ConfigError
from treegym.integrations.trackers import TRACKERS, open_tracker, track_agent


def _run(name: str, folder: Path) -> None:
    tracker = open_tracker(name, run="one", folder=folder, config={"lr": 0.1, "fn": print})
    for step in (10, 20):
        tracker.log(step, {"rollout/ep_rew_mean": step / 100, "broken": float("nan"), "text": "x"})  # type: ignore[dict-item]
    tracker.close()


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _run("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "one"))
    events.Reload()
    assert events.Tags()["scalars"] == ["rollout/ep_rew_mean"]
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("rollout/ep_rew_mean")] == [(10, 0.1), (20, 0.2)]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'm.db'}")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'm.db'}")
    _run("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    [run] = client.search_runs([client.get_experiment_by_name("treegym").experiment_id])
    assert run.data.params == {"lr": "0.1"}
    history = client.get_metric_history(run.info.run_id, "rollout/ep_rew_mean")
    assert [(m.step, m.value) for m in history] == [(10, 0.1), (20, 0.2)]


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    _run("wandb", tmp_path)
    [log] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    end = time.monotonic() + 30
    while b"rollout/ep_rew_mean" not in log.read_bytes():  # a process of its own writes, now and then after `finish`
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    import trackio.utils

    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path, raising=True)
    sqlite_storage = pytest.importorskip("trackio.sqlite_storage")
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path, raising=False)
    _run("trackio", tmp_path)
    [file] = list(tmp_path.rglob("*.db"))
    with sqlite3.connect(file) as database:
        rows = database.execute("select * from metrics").fetchall()
    assert len(rows) == 2
    assert "ep_rew_mean" in str(rows)


def test_a_tracker_that_is_down_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Down:
        def __init__(self, *given: Any) -> None:
            raise ConnectionError("nobody answers")

    monkeypatch.setitem(TRACKERS, "down", ("json", "none", Down))
    _run("down", tmp_path)
    assert capsys.readouterr().err == "note: down failed (nobody answers); the run goes on without it\n"
    with pytest.raises(ConfigError, match="no tracker 'wnadb'"):
        open_tracker("wnadb", run="x", folder=tmp_path)


def test_an_agents_progress_is_tracked(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    import gymnasium as gym

    from treegym.agents import PPO

    told: list[tuple[int, dict[str, float]]] = []

    class Note:
        def log(self, step: int, values: Any) -> None:
            told.append((step, dict(values)))

        def close(self) -> None:
            """Nothing is open."""

    env = gym.make("TokenTree-v0", tree="synthetic:roots=8,depth=3,branching=3,width=3,seed=0", split="all")
    PPO("ChildPolicy", env, seed=0, n_episodes=32).learn(200, callback=track_agent(Note()))
    assert told
    assert all("rollout/ep_rew_mean" in values for _, values in told)


def test_the_commands_track(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from treegym.__main__ import main

    world = "tree=synthetic:roots=8,depth=3,branching=3,width=3,seed=0"
    out = tmp_path / "run"
    given = [
        "train",
        "ppo",
        "--steps",
        "300",
        "--out",
        str(out),
        "--env-arg",
        world,
        "--json",
        "--track",
        "tensorboard",
    ]
    assert main(given) == 0
    assert list((out / "tensorboard" / "ppo-0").glob("events.*"))
    assert main([*given[:-1], "wnadb", "--resume"]) == 0  # nothing is left to train, so nothing is tracked
    assert main([*given[:-1], "wnadb", "--resume", "--steps", "9000"]) == 1
