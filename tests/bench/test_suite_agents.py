"""Agents of our own and of others in whole runs: every way of being made, and what they are charged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from treegym.bench.execute import execute
from treegym.bench.suite import Job, parse_suite

TREE = "synthetic:roots=40,depth=4,branching=3,difficulty=0.2,seed=0"


def _job(agent: str, kwargs: dict[str, Any], **changes: Any) -> Job:
    table = {
        "name": "test",
        "seeds": [0],
        "budget": {"env_steps": 1500},
        "checkpoints": 2,
        "envs": [{"name": "tiny", "id": "TokenTree-v0", "kwargs": {"tree": TREE}, "num_envs": 16}],
        "agents": [{"name": "it", "agent": agent, "kwargs": kwargs}],
        **changes,
    }
    return parse_suite(table, where="test").jobs()[0]


def _run(tmp_path: Path, agent: str, kwargs: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    (tmp_path / "runs").mkdir(exist_ok=True)
    return execute(_job(agent, kwargs or {}, **changes), out=tmp_path)


@pytest.mark.parametrize("agent", ["ppo", "dapo", "alphazero"])
def test_learners_spend_their_budget_and_no_more(tmp_path: Path, agent: str) -> None:
    summary = _run(tmp_path, agent, {"n_episodes": 32})
    assert 1500 <= summary["cost"]["env_steps"] < 1500 + 16
    assert len(summary["curve"]) == 3
    assert summary["hyperparameters"]["n_episodes"] == 32
    assert summary["cost"]["forward_passes"] > summary["cost"]["env_steps"]
    assert summary["cost"]["cpu_seconds"] > 0


def test_planning_is_charged_by_simulation(tmp_path: Path) -> None:
    summary = _run(tmp_path, "alphazero", {"n_episodes": 32, "num_simulations": 8})
    assert summary["cost"]["simulations"] == 8 * summary["cost"]["env_steps"]
    assert summary["cost"]["forward_passes"] >= summary["cost"]["simulations"]


def test_a_budget_in_forward_passes_ends_a_run(tmp_path: Path) -> None:
    summary = _run(tmp_path, "ppo", {"n_episodes": 16}, budget={"forward_passes": 2000})
    assert summary["cost"]["forward_passes"] >= 2000
    assert summary["cost"]["env_steps"] < 2000


def test_stable_baselines3_takes_part_unmodified(tmp_path: Path) -> None:
    summary = _run(tmp_path, "stable_baselines3:PPO", {"n_steps": 32, "batch_size": 64, "n_epochs": 1, "device": "cpu"})
    assert summary["cost"]["env_steps"] >= 1500
    assert summary["cost"]["forward_passes"] >= summary["cost"]["env_steps"]


@pytest.mark.parametrize("agent", ["random", "greedy_prior", "mcts", "oracle"])
def test_agents_that_do_not_learn_are_evaluated_once(tmp_path: Path, agent: str) -> None:
    summary = _run(tmp_path, agent)
    assert len(summary["curve"]) == 1
    assert summary["cost"]["env_steps"] == 0
    if agent == "oracle":
        assert summary["final"]["score"] == summary["reference"]["optimum"]
        assert summary["final"]["regret"] == 0.0
    if agent == "mcts":
        assert summary["cost"]["evaluation"]["forward_passes"] > 0


def test_the_same_job_gives_the_same_episodes(tmp_path: Path) -> None:
    first = _run(tmp_path, "ppo", {"n_episodes": 16})
    second = _run(tmp_path, "ppo", {"n_episodes": 16})
    assert first["episodes"] == second["episodes"]
    assert first["final"] == second["final"]
