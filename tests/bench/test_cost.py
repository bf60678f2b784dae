"""What is charged beside steps: verdicts asked for, passes at test time; and what the page says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from treegym.bench.execute import execute
from treegym.bench.leaderboard import build_leaderboard
from treegym.bench.report.page import as_html
from treegym.bench.suite import bundled_suites, load_suite, parse_suite

TREE = "synthetic:roots=60,depth=4,branching=3,difficulty=0.2,seed=0"
SEARCH = {"n_episodes": 16, "n_envs": 16, "num_simulations": 8, "predict_simulations": 8}
AGENTS = [
    {"name": "told", "agent": "alphazero", "kwargs": SEARCH},
    {"name": "untold", "agent": "alphazero", "kwargs": {**SEARCH, "selfplay_sees": "value"}},
    {"name": "plain", "agent": "ppo", "kwargs": {"n_episodes": 32, "n_envs": 16}},
    {"name": "searching", "agent": "ppo_search", "kwargs": {"n_episodes": 32, "n_envs": 16, "predict_simulations": 8}},
]


def _suite(**changes: Any) -> Any:
    table = {
        "name": "costs",
        "seeds": [0],
        "checkpoints": 1,
        "budget": {"env_steps": 200},
        "evaluation": {"episodes": 12},
        "envs": [{"name": "tiny", "id": "TokenTree-v0", "kwargs": {"tree": TREE}, "num_envs": 16}],
        "agents": AGENTS,
    }
    return parse_suite({**table, **changes}, where="test")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("costs")
    (out / "runs").mkdir()
    suite = _suite()
    return suite, [execute(job, out=out) for job in suite.jobs()]


def test_verdicts_are_those_of_ended_episodes_and_of_searches_that_are_told(ran: Any) -> None:
    told, untold, plain, searching = (run["cost"] for run in ran[1])
    assert told["verdicts"] == told["episodes"] + told["simulations"]
    assert untold["simulations"] > 0
    assert untold["verdicts"] == untold["episodes"]
    assert plain["verdicts"] == plain["episodes"]
    assert searching["verdicts"] == searching["episodes"]


def test_searching_when_acting_changes_test_time_passes_and_nothing_of_learning(ran: Any) -> None:
    plain, searching = ran[1][2:]
    assert plain["training"]["sha256"] == searching["training"]["sha256"]
    assert plain["cost"]["forward_passes"] == searching["cost"]["forward_passes"]
    assert searching["cost"]["evaluation"]["forward_passes"] > 4 * plain["cost"]["evaluation"]["forward_passes"]
    assert searching["cost"]["evaluation"]["verdicts"] == 0


def test_the_page_says_what_self_play_is_given(ran: Any) -> None:
    board = build_leaderboard(*ran)
    [remark] = [line for line in board["remarks"] if "are told the verdict" in line]
    assert remark.startswith("told: its searches in training are told the verdict of every end they reach")
    assert "of its episodes begin at inner nodes" in remark
    [others] = [line for line in board["remarks"] if line.startswith("Episodes of training begin at inner nodes, too")]
    assert "plain (" in others
    page = as_html(board)
    assert "told: its searches in training" in page
    assert 'data-label="verdicts"' in page
    assert 'data-label="passes per answer"' in page
    assert "tiny: score against verdicts asked" in page


def test_the_page_shows_what_was_answered(ran: Any) -> None:
    answers = build_leaderboard(*ran)["samples"]["tiny"]
    assert len(answers) == 6
    for lines in answers.values():
        assert sorted(line[0] for line in lines) == ["plain", "searching", "told", "untold"]
        assert {line[2] for line in lines} <= {"yes", "no"}
    assert 'id="samples"' in as_html(build_leaderboard(*ran))


def test_verdicts_can_be_the_budget(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    suite = _suite(budget={"verdicts": 300}, agents=AGENTS[:3])
    told, untold, plain = (execute(job, out=tmp_path)["cost"] for job in suite.jobs())
    assert all(cost["verdicts"] >= 300 for cost in (told, untold, plain))
    assert told["env_steps"] < untold["env_steps"]


def test_an_order_that_depends_on_what_is_equal_is_said(make_runs: Any) -> None:
    suite, summaries = make_runs(skills={"early": 0.8, "late": 0.4}, envs=2)
    names = [env.name for env in suite.envs]
    assert not [line for line in build_leaderboard(suite, summaries)["remarks"] if "order changes" in line]
    swapped = {"early": "late", "late": "early"}
    for run in summaries:
        if run["env"] == names[1]:
            run["agent"] = swapped[run["agent"]]
    [said] = [line for line in build_leaderboard(suite, summaries)["remarks"] if "order changes" in line]
    assert said == f"The order changes between {names[0]} and {names[1]}: early and late."


def test_a_bundled_suite_charges_steps_passes_seconds_and_verdicts() -> None:
    assert "cost" in bundled_suites()
    suite = load_suite("cost")
    assert [set(env.budget or suite.budget) for env in suite.envs] == [
        {"env_steps"}, {"forward_passes"}, {"cpu_seconds"}, {"verdicts"},
    ]  # fmt: skip
    assert len({env.id for env in suite.envs}) == 1
