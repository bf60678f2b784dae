from __future__ import annotations

import csv
import io
import json
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from treegym.bench.leaderboard import build_leaderboard
from treegym.bench.report import FILES, write_report
from treegym.bench.report.charts import Axis, Figure, linear_ticks, log_ticks, short_number
from treegym.bench.report.page import as_html
from treegym.bench.report.tables import as_csv, as_markdown, as_text


@pytest.fixture(scope="module")
def board(make_runs: Any) -> dict[str, Any]:
    suite, summaries = make_runs(skills={"Strong": 0.9, "Fair | <b>": 0.6, "Weak": 0.3}, envs=2)
    return build_leaderboard(suite, summaries)


class Checker(HTMLParser):
    """Notes elements that are not closed, and everything that points outside."""

    VOID = frozenset({"meta", "br", "hr", "input", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_points_nowhere(board: dict[str, Any]) -> None:
    page = as_html(board)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.links == []
    assert "url(" not in page
    assert "@import" not in page
    assert "Fair | &lt;b&gt;" in page
    assert "<b>" not in page


def test_page_shows_every_part(board: dict[str, Any]) -> None:
    page = as_html(board)
    for part in ("leaderboard", "efficiency", "profiles", "proxy", "regret", "cost", "method"):
        assert f'id="{part}"' in page
    for label in ("environment steps", "model forward passes", "CPU seconds", "verdicts asked"):
        assert f">{label}" in page
    assert page.count('class="chart"') == 2 * 4 + 1 + 2 + 1  # four axes per env, profiles, a proxy chart per env, cost


def test_page_shows_settings_costs_and_single_runs(board: dict[str, Any]) -> None:
    rows = [{**row, "settings": {"learning_rate": 0.003}} for row in board["agents"]]
    page = as_html({**board, "agents": rows})
    assert page.count('<span class="settings">learning_rate 0.003</span>') == 3
    assert 'data-label="forward passes"' in page
    assert page.count('<circle class="run"') >= board["runs"]
    assert "Every setting that the agents ran with" in page


def test_labels_of_a_chart_meet_neither_each_other_nor_marks() -> None:
    chart = Figure("t", "d", Axis("x", 0, 1), Axis("y", 0, 1), "c")
    points = [(0.5 + i / 500, 0.8 + i / 1000) for i in range(8)]
    chart.avoid(points)
    for i, point in enumerate(points):
        chart.label(*point, f"agent number {i}")
    boxes = [
        (x if side == "start" else x - 5.9 * len(text), y - 10, 5.9 * len(text)) for x, y, text, side in chart.labels
    ]
    assert len(boxes) == 8
    for i, (x, y, width) in enumerate(boxes):
        for other_x, other_y, other_width in boxes[:i]:
            assert abs(y - other_y) >= 11.9 or x + width <= other_x or other_x + other_width <= x


def test_equal_leaderboards_give_equal_pages(board: dict[str, Any]) -> None:
    strip = json.loads(json.dumps(board))
    assert as_markdown(strip) == as_markdown(board)
    assert as_csv(strip) == as_csv(board)


def test_csv_has_a_line_an_agent_and_numbers_in_columns(board: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(board))))
    assert [row["agent"] for row in rows] == ["Strong", "Fair | <b>", "Weak"]
    assert float(rows[0]["iqm_low"]) <= float(rows[0]["iqm"]) <= float(rows[0]["iqm_high"])


def test_markdown_tables_are_rectangular(board: dict[str, Any]) -> None:
    width = None
    for line in as_markdown(board).splitlines():
        cells = line.replace("\\|", "").count("|") if line.startswith("|") else None
        if cells is not None and width is not None:
            assert cells == width
        width = cells


def test_text_is_aligned(board: dict[str, Any]) -> None:
    lines = as_text(board).splitlines()
    header = "# agent IQM [95 %] mean optimality gap regret length rating env steps forward passes CPU s"
    assert lines[0].split() == header.split()
    assert "Strong" in lines[2]


def test_files_are_written(board: dict[str, Any], tmp_path: Path) -> None:
    assert [path.name for path in write_report(board, tmp_path)] == list(FILES)
    assert json.loads((tmp_path / "leaderboard.json").read_text()) == board


def test_ticks_and_axes() -> None:
    assert linear_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert linear_ticks(0, 52_000) == [0, 10_000, 20_000, 30_000, 40_000, 50_000]
    assert log_ticks(9, 1100) == [10, 30, 100, 300, 1000]
    axis = Axis("x", 1, 100, log=True)
    assert axis.position(10) == pytest.approx(0.5)
    assert [short_number(x) for x in (0.25, 1500, 2e7, 0)] == ["0.25", "1.5k", "20M", "0"]


@pytest.mark.slow
def test_ten_thousand_runs_are_reported_in_half_a_minute(make_runs: Any, tmp_path: Path) -> None:
    suite, summaries = make_runs(skills={f"agent {i}": 0.3 + i / 40 for i in range(20)}, seeds=50, envs=10, prompts=100)
    assert len(summaries) == 10_000
    folder = tmp_path / "runs"
    folder.mkdir()
    for i, summary in enumerate(summaries):
        (folder / f"{i}.json").write_text(json.dumps(summary))
    start = time.process_time()
    read = [json.loads(path.read_text()) for path in sorted(folder.iterdir())]
    write_report(build_leaderboard(suite, read), tmp_path)
    assert time.process_time() - start < 30
