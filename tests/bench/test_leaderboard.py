from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

from treegym.bench.leaderboard import build_leaderboard
from treegym.bench.rating import rate
from treegym.errors import DataError

SKILLS = {"Strong": 0.9, "Fair": 0.6, "Weak": 0.3}


def test_better_agents_come_first_and_say_so_in_every_statistic(make_runs: Any) -> None:
    suite, summaries = make_runs(skills=SKILLS, seeds=6, envs=2, prompts=100)
    board = build_leaderboard(suite, summaries)
    rows = board["agents"]
    assert [row["name"] for row in rows] == ["Strong", "Fair", "Weak"]
    for above, below in itertools.pairwise(rows):
        assert above["iqm"][1] > below["iqm"][2]  # intervals apart
        assert above["rating"]["mu"] > below["rating"]["mu"]
        assert above["optimality_gap"][0] < below["optimality_gap"][0]
        assert above["regret"] < below["regret"]
    assert board["improvement"][0][1][0] == 1.0
    assert board["improvement"][1][0][0] == 0.0
    assert board["improvement"][0][0] is None
    assert all(lead["lead"][1] > 0 for lead in board["differences"])
    for row in rows:
        assert row["iqm"][1] <= row["iqm"][0] <= row["iqm"][2]
        narrow, wide = row["iqm"][2] - row["iqm"][1], row["mean_over_prompts"][2] - row["mean_over_prompts"][1]
        assert wide > 0.5 * narrow
        assert row["profile"]["point"] == sorted(row["profile"]["point"], reverse=True)


def test_same_runs_and_seed_give_the_same_leaderboard(make_runs: Any) -> None:
    suite, summaries = make_runs(skills=SKILLS)
    assert build_leaderboard(suite, summaries) == build_leaderboard(suite, list(reversed(summaries)))


def test_scores_are_put_on_the_environments_scale(make_runs: Any) -> None:
    suite, summaries = make_runs(skills={"A": 0.5}, seeds=5)
    plain = build_leaderboard(suite, summaries)["agents"][0]["mean"][0]
    env = suite.envs[0].__class__(**{**suite.envs[0].__dict__, "scale": (-1.0, 3.0)})
    scaled = suite.__class__(**{**suite.__dict__, "envs": (env,)})
    # (x + 1) / 4
    assert build_leaderboard(scaled, summaries)["agents"][0]["mean"][0] == pytest.approx((plain + 1) / 4, abs=1e-6)


def test_missing_runs_are_said_and_unfinished_agents_not_ranked(make_runs: Any) -> None:
    suite, summaries = make_runs(skills=SKILLS, envs=2)
    kept = [run for run in summaries if not (run["agent"] == "Fair" and run["env"] == "world 1")]
    board = build_leaderboard(suite, kept)
    assert [row["name"] for row in board["agents"]] == ["Strong", "Weak"]
    assert any("5 of 30 runs are missing" in warning for warning in board["warnings"])
    assert any("Not ranked" in warning and "Fair" in warning for warning in board["warnings"])


def test_different_prompts_are_refused_and_nothing_is_no_leaderboard(make_runs: Any) -> None:
    suite, summaries = make_runs(skills=SKILLS)
    changed = copy.deepcopy(summaries)
    changed[-1]["final"]["prompts"][0] = 999
    with pytest.raises(DataError, match="other prompts"):
        build_leaderboard(suite, changed)
    with pytest.raises(DataError, match="no finished run"):
        build_leaderboard(suite, [])


def test_rating_follows_wins_not_margins() -> None:
    rng = np.random.default_rng(0)
    base = rng.random((5, 100))
    # "Slightly" is better on every prompt by a hair, "Rarely" far better on one in ten and a hair worse elsewhere.
    rarely = np.where(rng.random((5, 100)) < 0.1, base + 10, base - 0.001)
    ratings = rate({"env": {"base": base, "slightly": base + 0.001, "rarely": rarely}}, seed=0)
    assert ratings["slightly"]["mu"] > ratings["base"]["mu"] > ratings["rarely"]["mu"]
    assert rate({"env": {"only": base}}, seed=0) == {}


def test_it_is_said_when_a_planner_sees_the_verifier(make_runs: Any) -> None:
    suite, summaries = make_runs(skills=SKILLS)
    assert build_leaderboard(suite, summaries)["planner_sees"] == {"world 0": "no verdict"}
    for run in summaries:
        if run["agent"] == "Fair":
            run["hyperparameters"] = {"planner_sees": "verifier"}
    assert build_leaderboard(suite, summaries)["planner_sees"] == {"world 0": "the verifier (Fair)"}


def test_runs_on_different_trees_do_not_share_a_leaderboard(make_runs: Any) -> None:
    suite, summaries = make_runs(skills=SKILLS)
    summaries[3]["world"] = "another"
    with pytest.raises(DataError, match="2 different trees"):
        build_leaderboard(suite, summaries)
