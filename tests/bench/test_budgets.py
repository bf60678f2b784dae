"""Whatever a budget limits, schedules end when it ends, and who never learned is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from treegym.bench.execute import _contestant, execute
from treegym.bench.leaderboard import build_leaderboard
from treegym.bench.meter import Meter
from treegym.bench.suite import parse_suite

TREE = "synthetic:roots=60,depth=4,branching=3,difficulty=0.2,seed=0"


def _suite(budget: dict[str, float], **agent: Any) -> Any:
    return parse_suite(
        {
            "name": "budgets",
            "seeds": [0],
            "checkpoints": 1,
            "budget": budget,
            "evaluation": {"episodes": 10},
            "envs": [{"name": "tiny", "id": "TokenTree-v0", "kwargs": {"tree": TREE}, "num_envs": 16}],
            "agents": [{"name": "it", **agent}],
        },
        where="test",
    )


@pytest.mark.parametrize(
    "budget",
    [{"env_steps": 1e9, "forward_passes": 4000}, {"env_steps": 800, "cpu_seconds": 1e6}, {"forward_passes": 4000}],
    ids=["passes bind", "steps bind", "passes alone"],
)
def test_schedules_of_ours_follow_whichever_limit_binds(budget: dict[str, float]) -> None:
    settings = {"learning_rate": "lin_0.01", "n_episodes": 32, "n_envs": 16}
    [job] = _suite(budget, agent="ppo", kwargs=settings).jobs()
    meter = Meter(job.budget, 1, lambda number: None)
    agent, learn, _ = _contestant(job, meter)
    assert learn is not None
    rates = []
    update = agent.update
    agent.update = lambda rollout: (rates.append(agent.lr_schedule(agent._current_progress_remaining)), update(rollout))
    learn()
    assert len(rates) >= 3
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.35 * rates[0]


def test_exploration_of_sb3s_dqn_ends_under_two_limits() -> None:
    settings = {"policy": "MultiInputPolicy", "learning_starts": 50, "train_freq": 8, "exploration_fraction": 0.5}
    [job] = _suite({"env_steps": 2000, "forward_passes": 1e9}, agent="stable_baselines3:DQN", kwargs=settings).jobs()
    agent, learn, _ = _contestant(job, Meter(job.budget, 1, lambda number: None))
    assert learn is not None
    learn()
    assert agent.exploration_rate == pytest.approx(0.05)


def test_who_made_no_update_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    settings = {"policy": "MultiInputPolicy", "n_steps": 2048}
    suite = _suite({"env_steps": 500}, agent="stable_baselines3:PPO", kwargs=settings)
    summary = execute(suite.jobs()[0], out=tmp_path)
    assert summary["cost"]["updates"] == 0
    said = [line for line in build_leaderboard(suite, [summary])["warnings"] if "no update" in line]
    assert len(said) == 1
    assert "learned nothing there: it;" in said[0]
