"""The leaderboard as text: a table for the terminal, Markdown, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from treegym.display import csv_cell, plain

__all__ = [
    "as_csv",
    "as_markdown",
    "as_text",
    "failures",
    "interval",
    "number",
    "plan",
    "provenance_line",
    "settings_text",
]

_COSTS = ("env_steps", "forward_passes", "cpu_seconds")


def number(value: float | None, digits: int = 3) -> str:
    """Returns a number with fixed digits, thousands apart, a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"


def interval(values: Sequence[float | None] | None) -> str:
    """Returns ``0.812 [0.790, 0.834]``."""
    if values is None:
        return "–"
    return f"{number(values[0])} {ends(values)}".rstrip()


def ends(values: Sequence[float | None]) -> str:
    """Returns ``[0.790, 0.834]``, or nothing where the ends are not known."""
    _, low, high = values
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def _rows(board: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["#", "agent", "IQM [95 %]", "mean", "optimality gap", "regret", "length", "rating", "env steps",
              "forward passes", "CPU s"]  # fmt: skip
    rows = []
    for row in board["agents"]:
        rating = row["rating"]
        rows.append(
            [
                str(row["rank"]),
                plain(row["name"]),
                interval(row["iqm"]),
                number(row["mean"][0]),
                number(row["optimality_gap"][0]),
                number(row["regret"]),
                number(row["length"], 1),
                "–" if rating is None else f"{rating['mu']:.1f} ± {rating['sigma']:.1f}",
                number(row["cost"]["env_steps"], 0),
                number(row["cost"]["forward_passes"], 0),
                number(row["cost"]["cpu_seconds"], 1),
            ]
        )
    return header, rows


def references(board: Mapping[str, Any]) -> list[str]:
    """Returns a line for every environment: what chance and the exact optimum score, and what a planner sees."""
    lines = []
    for env, values in board["references"].items():
        budget = _amounts(board["budget"][env])
        known = [f"{name} {number(value)}" for name, value in values.items()]
        exact = f"; exactly computed: {', '.join(known)}" if known else ""
        lines.append(
            f"{env}: {board['prompts'][env]} held-out prompts, metric {board['metric'][env]}, budget {budget}{exact}; "
            f"planners see {board['planner_sees'][env]}"
        )
    return lines


def plan(board: Mapping[str, Any]) -> list[str]:
    """Returns a line per environment: its budget, its metric, what planners see."""
    return [
        f"{env}: {_amounts(budget)} per run; metric {board['metric'][env]}; planners see {board['planner_sees'][env]}"
        for env, budget in board["budget"].items()
    ]


def _amounts(budget: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:,.0f} {unit.replace('_', ' ')}" for unit, amount in budget.items())


def settings_text(settings: Mapping[str, Any]) -> str:
    """Returns settings as ``learning_rate 0.003, n_epochs 8``."""
    return ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()
    )


def failures(board: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of the table of rewards that failed; no rows where none did."""
    header = ["environment", "agent", "training episodes", "evaluation episodes"]
    counts = [
        [row["env"], row["agent"], *("{:,} of {:,}".format(*row[phase]) for phase in ("training", "evaluation"))]
        for row in board.get("failed_rewards", ())
    ]
    return header, counts


def as_text(board: Mapping[str, Any]) -> str:
    """Returns the leaderboard for a terminal."""
    header, rows = _rows(board)
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    left = {1}  # names read better flush left

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    body = [line(header), "  ".join("-" * width for width in widths), *(line(row) for row in rows)]
    notes = [*board["remarks"], *(f"Note: {warning}" for warning in board["warnings"])]
    return plain("\n".join([*body, "", *references(board), *notes]), lines=True)


def as_markdown(board: Mapping[str, Any]) -> str:
    """Returns the leaderboard, the differences between neighbours and regret by task kind as Markdown."""
    header, rows = _rows(board)
    parts = [f"# Benchmark `{board['suite']}`", "", board["description"], ""]
    parts += [f"- {line}" for line in references(board)]
    parts += [
        f"- {len(board['seeds'])} seeds, {board['runs']} of {board['expected_runs']} runs",
        f"- {provenance_line(board)}",
        *(f"- **Note:** {warning}" for warning in board["warnings"]),
        *(f"- {remark}" for remark in board["remarks"]),
        "",
        *_markdown_table(header, rows),
        "",
        "IQM: interquartile mean over runs and environments. Brackets: 95 % stratified bootstrap over training runs.",
        "",
    ]
    if board["differences"]:
        parts += ["## Lead over the next agent", ""]
        leads = [[d["first"], d["second"], interval(d["lead"])] for d in board["differences"]]
        parts += _markdown_table(["agent", "ahead of", "mean difference [95 %, over runs and prompts]"], leads)
        parts.append("")
    titles, counts = failures(board)
    if counts:
        parts += ["## Episodes with failed rewards", "", *_markdown_table(titles, counts), ""]
    for env in board["prompts"]:
        kinds = sorted({kind for row in board["agents"] for kind in row["envs"][env]["kinds"]})
        parts += [f"## Regret by task kind: {env}", ""]
        table = [
            [row["name"], *(number(row["envs"][env]["kinds"].get(kind, {}).get("regret")) for kind in kinds)]
            for row in board["agents"]
        ]
        parts += [*_markdown_table(["agent", *kinds], table), ""]
    return "\n".join(parts)


def provenance_line(board: Mapping[str, Any]) -> str:
    """Returns versions, revision and machine in one line."""
    origin = board["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in origin.get("versions", {}).items())
    hardware = origin.get("hardware", {})
    revision = origin.get("git") or "no checkout"
    return f"{versions}; revision {revision[:12]}; {hardware.get('processor', '?')}, {hardware.get('cores', '?')} cores"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(plain(cell).replace("|", "\\|") for cell in cells) + " |"

    return [line(header), "|" + " --- |" * len(header), *(line(row) for row in rows)]


def as_csv(board: Mapping[str, Any]) -> str:
    """Returns one line per agent, every number in a column of its own."""
    aggregates = ("iqm", "mean", "median", "optimality_gap", "mean_over_prompts")
    columns = ["rank", "agent", "runs"]
    columns += [f"{name}{end}" for name in aggregates for end in ("", "_low", "_high")]
    columns += ["correct", "return", "true", "proxy", "regret", "length", "rating_mu", "rating_sigma", *_COSTS]
    columns += ["simulations", "judge_calls", "discarded_groups"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in board["agents"]:
        rating = row["rating"] or {}
        values: list[Any] = [row["rank"], csv_cell(row["name"]), row["runs"]]
        values += [end for name in aggregates for end in row[name]]
        values += [row[name] for name in ("correct", "return", "true", "proxy", "regret", "length")]
        values += [rating.get("mu"), rating.get("sigma")]
        values += [row["cost"][name] for name in (*_COSTS, "simulations", "judge_calls", "discarded_groups")]
        writer.writerow(["" if value is None else value for value in values])
    return out.getvalue()
