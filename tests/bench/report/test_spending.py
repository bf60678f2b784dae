"""Accuracy against tokens: from the returns of runs to the chart."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from treegym.bench.arena import Arena
from treegym.bench.gathering import AgentRuns
from treegym.bench.leaderboard import build_leaderboard
from treegym.bench.report.charts import HEIGHT, WIDTH
from treegym.bench.report.page import as_html
from treegym.bench.report.spending import BOUND, BY_COUNTS, spending_chart
from treegym.bench.spending import price_of, spent
from treegym.bench.suite import EnvEntry


@pytest.fixture(scope="module")
def plain(make_runs: Any) -> dict[str, Any]:
    suite, summaries = make_runs(skills={"Strong": 0.9, "Fair": 0.6}, envs=2)
    return build_leaderboard(suite, summaries)


@pytest.fixture
def board(plain: dict[str, Any]) -> dict[str, Any]:
    """A board of two prices, at 0.1 and 0.2 a chain."""
    board = copy.deepcopy(plain)
    for number, (env, price) in enumerate(zip(board["prompts"], (0.1, 0.2), strict=True)):
        for row in board["agents"]:
            accuracy = 0.7 - 0.1 * number - 0.05 * (row["name"] == "Fair")
            row["envs"][env]["spent"] = {
                "price": price, "accuracy": [accuracy, accuracy - 0.02, accuracy + 0.02], "chains": 2.0 - number,
                "runs": [[2.0 - number, accuracy]],
            }  # fmt: skip
        board["references"][env] = {
            "best_oracle": 0.6 - 0.1 * number,
            "by_counts_accuracy": 0.5,
            "by_counts_chains": 1.5,
        }
    return board


def test_chains_follow_from_accuracy_and_return() -> None:
    finals = [{"correct": 0.6, "return": 0.4}, {"correct": 0.8, "return": 0.5}]
    scores = np.array([[0.4], [0.5]])
    runs = AgentRuns([{"final": f, "training": {}} for f in finals], ("",), scores, scores, scores)
    found = spent(runs, 0.1, seed=0)
    # (0.6 - 0.4) / 0.1 = 2 chains and (0.8 - 0.5) / 0.1 = 3; 0.7 of the answers are right
    assert found["runs"] == [[2.0, 0.6], [3.0, 0.8]]
    assert found["chains"] == pytest.approx(2.5)
    assert found["accuracy"][0] == pytest.approx(0.7)
    assert found["accuracy"][1] < 0.7 < found["accuracy"][2]


@pytest.mark.parametrize(
    ("env", "price"),
    [
        (EnvEntry(name="a", id="TestTimeCompute-v0", metric="return"), 0.05),
        (EnvEntry(name="a", id="TestTimeCompute-v0", metric="return", kwargs={"token_cost": 0.2}), 0.2),
        (EnvEntry(name="a", id="TestTimeCompute-v0", metric="return", kwargs={"token_cost": [0.01, 0.2]}), None),
        (EnvEntry(name="a", id="TestTimeCompute-v0", metric="return", kwargs={"token_cost": 0}), None),
        (EnvEntry(name="a", id="TestTimeCompute-v0"), None),
        (EnvEntry(name="a", id="TokenTree-v0", metric="return"), None),
    ],
)
def test_worlds_that_charge(env: EnvEntry, price: float | None) -> None:
    assert price_of(env) == price


def test_the_chart_has_every_agent_the_optimum_and_the_bound(board: dict[str, Any]) -> None:
    figure = spending_chart(board)
    assert figure is not None
    lines = {series.name: series for series in figure.series}
    assert list(lines) == ["Strong", "Fair", BY_COUNTS, BOUND]
    assert lines["Strong"].points == [(1.0, pytest.approx(0.6)), (2.0, pytest.approx(0.7))]  # by tokens, not by price
    assert lines["Strong"].band == [
        (pytest.approx(0.58), pytest.approx(0.62)),
        (pytest.approx(0.68), pytest.approx(0.72)),
    ]
    # Nobody exceeds 0.6 + 0.1 t and 0.5 + 0.2 t: 0.5 without a token, and from one chain on the first line.
    for t, most in lines[BOUND].points:
        assert most == pytest.approx(0.5 + 0.2 * t if t <= 1 else 0.6 + 0.1 * t)
    assert [label[2] for label in figure.labels] == ["Strong", "Fair", BY_COUNTS, BOUND]
    for x, y, text, anchor in figure.labels:
        left = x if anchor == "start" else x - 5.9 * len(text)
        assert 0 <= left <= left + 5.9 * len(text) <= WIDTH
        assert 0 <= y <= HEIGHT
    assert figure.y.low == pytest.approx(0.4)  # the tenth below the lowest, which is 0.5 by counts
    assert len(figure.rows) == 2 * 2 + 2 + 2


def test_the_page_shows_it_only_where_tokens_are_charged(plain: dict[str, Any], board: dict[str, Any]) -> None:
    assert 'id="spending"' not in as_html(plain)
    assert spending_chart(plain) is None
    page = as_html(board)
    assert 'id="spending"' in page
    assert BOUND in page


def test_an_arena_knows_the_bounds_of_a_compute_world() -> None:
    kwargs = {"pool": "synthetic:prompts=20,chains=12,segments=2,segment=8", "max_branches": 3, "token_cost": 0.1}
    entry = EnvEntry(name="a", id="TestTimeCompute-v0", metric="return", kwargs=kwargs)
    assert Arena(entry, split="test", episodes=0).references() == {}  # chains have two segments: no bound is known
    whole = {**kwargs, "pool": "synthetic:prompts=20,chains=12,segments=2,segment=8", "aggregate": "best"}
    tree = {"pool": "tree:synthetic:roots=20,depth=4,branching=3,seed=0", "segment": 64, "samples": 12}
    known = Arena(EnvEntry(name="a", id="TestTimeCompute-v0", metric="return", kwargs={**whole, **tree}), split="test",
                  episodes=0).references()  # fmt: skip
    assert set(known) == {"by_counts", "by_counts_accuracy", "by_counts_chains", "best_oracle"}
    assert known["by_counts"] == pytest.approx(known["by_counts_accuracy"] - 0.1 * known["by_counts_chains"])
    assert known["by_counts"] <= 1.0
    assert known["best_oracle"] <= 1.0
