"""The report as one HTML page without network: light and dark, readable on a phone and by a screen reader."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from treegym.bench.report.charts import (
    Figure,
    cost_chart,
    efficiency_charts,
    profile_chart,
    proxy_chart,
    styles,
)
from treegym.bench.report.svg import marker_swatch
from treegym.bench.report.tables import failures, interval, number, provenance_line

__all__ = ["as_html"]

_SWATCH_LESS = '<svg class="swatch" viewBox="0 0 26 12" aria-hidden="true"><g class="series ref"><path class="line" stroke-dasharray="4 3" d="M1 6H25"/></g></svg>'  # noqa: E501


def as_html(board: Mapping[str, Any]) -> str:
    """Returns the whole page."""
    folder = resources.files("treegym.bench.report") / "templates"
    css = (folder / "report.css").read_text(encoding="utf-8")
    script = (folder / "report.js").read_text(encoding="utf-8")
    several = len(board["prompts"]) > 1
    parts = [_header(board), _section("leaderboard", "Leaderboard", _leaderboard(board))]
    curves = []
    for env in board["prompts"]:
        heading = f"<h3>{_e(env)}</h3>" if several else ""
        curves.append(
            heading + '<div class="charts">' + "".join(map(_figure, efficiency_charts(board, env))) + "</div>"
        )
    parts.append(
        _section(
            "efficiency",
            "Sample efficiency",
            "<p>The same learning curves on three axes, since a step of one agent may cost another's hundred: planning "
            "is charged for every simulation, dynamic sampling for every group it throws away. Bands are 95 % "
            "bootstrap intervals over training runs.</p>" + _legend(board) + "".join(curves),
        )
    )
    parts.append(
        _section(
            "profiles",
            "Performance profiles and probability of improvement",
            _legend(board) + '<div class="charts">' + _figure(profile_chart(board)) + _improvement(board) + "</div>",
        )
    )
    proxies = "".join(_figure(proxy_chart(board, env), heading=env if several else "") for env in board["prompts"])
    parts.append(
        _section(
            "proxy",
            "Proxy against true reward",
            "<p>What agents are trained on, against what the verifier says. Learning moves a line up; exploiting the "
            f'proxy moves it right only.</p>{_legend(board)}<div class="charts">{proxies}</div>',
        )
    )
    parts.append(_section("regret", "Regret by task kind", _regret(board)))
    parts.append(
        _section("cost", "Cost", '<div class="charts">' + _figure(cost_chart(board)) + _cost_table(board) + "</div>")
    )
    header, counts = failures(board)
    if counts:
        parts.append(
            _section(
                "failures",
                "Episodes with failed rewards",
                "<p>A reward term failed at one of their steps at least and was left out of what was paid, or stood at "
                'its default; a failure is never a score of 0.</p><div class="scroll">'
                + _table(header, counts)
                + "</div>",
            )
        )
    parts.append(_section("method", "How this was measured", _method(board)))
    title = f"TreeGym benchmark: {board['suite']}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{_e(title)}</title><style>{css}</style></head><body><main>"
        + "".join(parts)
        + f"</main><script>{script}</script></body></html>\n"
    )


def _e(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _section(anchor: str, title: str, body: str) -> str:
    return f'<section id="{anchor}" aria-labelledby="h-{anchor}"><h2 id="h-{anchor}">{title}</h2>{body}</section>'


def _header(board: Mapping[str, Any]) -> str:
    facts = [
        ("agents", len(board["agents"])),
        ("environments", len(board["prompts"])),
        ("seeds", len(board["seeds"])),
        ("runs", f"{board['runs']} of {board['expected_runs']}"),
        ("held-out prompts", sum(board["prompts"].values())),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{_e(value)}</dd></div>" for name, value in facts)
    warnings = "".join(f"<li>{_e(warning)}</li>" for warning in board["warnings"])
    return (
        '<header><button id="theme" type="button" aria-label="Switch between light and dark">◐</button>'
        f'<p class="kicker">TreeGym benchmark</p><h1>{_e(board["suite"])}</h1>'
        f'<p>{_e(board["description"])}</p><p class="lead">{_e(_verdict(board))}</p><dl>{listed}</dl>'
        + (f'<ul class="warnings">{warnings}</ul>' if warnings else "")
        + "</header>"
    )


def _verdict(board: Mapping[str, Any]) -> str:
    """Returns the result in a sentence or two."""
    rows = board["agents"]
    if not rows:
        return "No agent has finished in every environment yet."
    first = rows[0]
    said = f"{first['name']} leads with an interquartile mean of {interval(first['iqm'])}."
    apart = sum(_apart(above["iqm"], below["iqm"]) for above, below in itertools.pairwise(rows))
    if len(rows) > 1:
        said += f" {apart} of {len(rows) - 1} neighbouring pairs have intervals that do not overlap."
    return said


def _apart(above: Sequence[float | None], below: Sequence[float | None]) -> bool:
    return above[1] is not None and below[2] is not None and above[1] > below[2]


def _leaderboard(board: Mapping[str, Any]) -> str:
    colours = styles(board)
    known = [values["optimum"] for values in board["references"].values() if "optimum" in values]
    chance = [values["random"] for values in board["references"].values() if "random" in values]
    top = max([1.0, *(row["iqm"][2] or row["iqm"][0] for row in board["agents"])])
    marks = [(sum(v) / len(v), name) for v, name in ((known, "optimum"), (chance, "chance")) if v]
    rows = []
    for row in board["agents"]:
        rating = row["rating"]
        extra = (
            ""
            if not row["deterministic"]
            else '<span class="tag" title="every seed gives the same answers">fixed</span>'
        )
        cells = [
            ("n strong", number(row["iqm"][0])),
            ("forest", _forest(row["iqm"], top, marks)),
            ("n wide", interval(row["mean_over_prompts"])),
            ("n", number(row["optimality_gap"][0])),
            ("n", number(row["regret"])),
            ("n wide", number(row["length"], 1)),
            ("n wide", "–" if rating is None else format(rating["mu"], ".1f")),
        ]
        rows.append(
            f'<tr><td class="n">{row["rank"]}</td>'
            f'<th scope="row">{_swatch(colours[row["name"]])}{_e(row["name"])}{extra}</th>'
            + "".join(f'<td class="{css}">{text}</td>' for css, text in cells)
            + "</tr>"
        )
    head = (
        '<tr><th class="n">#</th><th>agent</th><th class="n">IQM</th><th>95 % interval over runs</th>'
        '<th class="n wide">mean [over runs and prompts]</th><th class="n">gap to 1</th><th class="n">regret</th>'
        '<th class="n wide">length</th><th class="n wide">rating</th></tr>'
    )
    lines = "; ".join(
        f"the {'dotted' if name == 'chance' else 'solid'} line marks {name}, {x:.3f}" for x, name in marks
    )
    note = f"Exactly computed on the tree: {lines}." if marks else ""
    return (
        f'<p class="caption" id="c-board">Ranked by interquartile mean. {note}</p>'
        f'<div class="scroll"><table class="board" aria-describedby="c-board">'
        f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _forest(ends: Sequence[float | None], top: float, marks: Sequence[tuple[float, str]]) -> str:
    """Returns an interval as a dot on a line; the numbers are its text alternative."""
    scale = 180 / top
    point, low, high = ends
    assert point is not None
    low, high = (max(point if end is None else end, 0.0) for end in (low, high))

    def upright(value: float, css: str, y1: int, y2: int) -> str:
        x = f"{4 + value * scale:.1f}"
        return f'<line class="{css}" x1="{x}" x2="{x}" y1="{y1}" y2="{y2}"/>'

    text = _e(interval(ends))
    parts = [upright(x, "grid dotted" if name == "chance" else "axis", 0, 22) for x, name in marks]
    parts.append('<line class="grid" x1="4" x2="184" y1="11" y2="11"/>')
    parts.append(f'<line class="whisker" x1="{4 + low * scale:.1f}" x2="{4 + high * scale:.1f}" y1="11" y2="11"/>')
    parts += [upright(low, "whisker", 6, 16), upright(high, "whisker", 6, 16)]
    parts.append(f'<circle class="dot" cx="{4 + max(point, 0) * scale:.1f}" cy="11" r="3"/>')
    return f'<svg viewBox="0 0 188 22" role="img" aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>'


def _swatch(style: int | None) -> str:
    return _SWATCH_LESS if style is None else marker_swatch(style)


def _legend(board: Mapping[str, Any]) -> str:
    items = "".join(
        f'<li data-name="{_e(name)}">{_swatch(style)}{_e(name)}</li>'
        for name, style in styles(board).items()
        if style is not None
    )
    return f'<ul class="legend">{items}</ul>'


def _figure(figure: Figure, heading: str = "") -> str:
    title = f"{heading}: {figure.caption}" if heading else figure.caption
    return (
        f"<figure>{figure.svg}<figcaption>{_e(title)}</figcaption><details><summary>The numbers</summary>"
        f'<div class="scroll">{_table(figure.header, figure.rows)}</div></details></figure>'
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th class="{"n" if i else ""}">{_e(cell)}</th>' for i, cell in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f'<td class="{"n" if i else ""}">{_e(cell)}</td>' for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _improvement(board: Mapping[str, Any]) -> str:
    names = [row["name"] for row in board["agents"]]
    head = "".join(f'<th class="tilt" scope="col"><span>{_e(name)}</span></th>' for name in names)
    body = []
    for name, line in zip(names, board["improvement"], strict=True):
        cells = "".join('<td class="self"></td>' if cell is None else _heat(cell) for cell in line)
        body.append(f'<tr><th scope="row">{_e(name)}</th>{cells}</tr>')
    return (
        '<figure><p class="caption" id="c-matrix">Probability that a run of the row\'s agent beats a run of '
        "the column's, ties half. Bold: the 95 % interval excludes ½.</p>"
        '<div class="scroll"><table class="matrix" aria-describedby="c-matrix">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div></figure>"
    )


def _heat(cell: Sequence[float | None]) -> str:
    point, low, high = cell
    assert point is not None
    sure = low is not None and high is not None and (low > 0.5 or high < 0.5)
    side = "win" if point >= 0.5 else "lose"
    return (
        f'<td class="n heat {side}{" strong" if sure else ""}" style="--p:{abs(point - 0.5) * 2:.2f}" '
        f'title="{_e(interval(cell))}">{point:.2f}</td>'
    )


def _regret(board: Mapping[str, Any]) -> str:
    parts = [
        "<p>Best possible return minus the return, by kind of task; 0 is perfect. Shading follows the number.</p>",
        '<div class="charts">',
    ]
    for env in board["prompts"]:
        kinds = sorted({kind for row in board["agents"] for kind in row["envs"][env]["kinds"]})
        worst = max(
            [row["envs"][env]["kinds"][k].get("regret") or 0.0 for row in board["agents"] for k in kinds] + [1e-9]
        )
        head = "".join(f'<th class="n" scope="col">{_e(kind)}</th>' for kind in kinds)
        body = []
        for row in board["agents"]:
            cells = []
            for kind in kinds:
                value = row["envs"][env]["kinds"][kind].get("regret")
                share = 0.0 if value is None else value / worst
                cells.append(f'<td class="n heat lose" style="--p:{share:.2f}">{number(value)}</td>')
            body.append(f'<tr><th scope="row">{_e(row["name"])}</th>{"".join(cells)}</tr>')
        parts.append(
            f'<div class="scroll"><table class="matrix"><caption>{_e(env)}</caption>'
            f"<thead><tr><th>agent</th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )
    return "".join(parts) + "</div>"


def _cost_table(board: Mapping[str, Any]) -> str:
    names = ("env_steps", "forward_passes", "cpu_seconds", "simulations", "judge_calls", "discarded_groups")
    used = [name for name in names if any(row["cost"].get(name) for row in board["agents"])]
    header = ["agent", *(name.replace("_", " ") for name in used), "CPU s of evaluation"]
    rows = [
        [
            row["name"],
            *(number(row["cost"].get(name), 1 if name == "cpu_seconds" else 0) for name in used),
            number(row["evaluation"]["cpu_seconds"], 2),
        ]
        for row in board["agents"]
    ]
    return (
        "<figure><figcaption>Mean cost of a training run, and what evaluating it took (charged to nobody)"
        '</figcaption><div class="scroll">' + _table(header, rows) + "</div></figure>"
    )


def _method(board: Mapping[str, Any]) -> str:
    budgets = "".join(
        f"<li>{_e(env)}: "
        + _e(", ".join(f"{amount:,.0f} {unit.replace('_', ' ')}" for unit, amount in budget.items()))
        + f" a run; metric {_e(board['metric'][env])}; planners see {_e(board['planner_sees'][env])}</li>"
        for env, budget in board["budget"].items()
    )
    return (
        "<ul><li>Every agent has the same budget, which counts planning and thrown-away samples; agents marked "
        "<i>fixed</i> or drawn grey do not learn.</li>"
        f"{budgets}<li>Scores are those of the last evaluation on held-out prompts, always taking the action the agent "
        "thinks best. IQM: mean of the middle half of all (run, environment) scores. Intervals over runs: stratified "
        "bootstrap, runs resampled whole, Student's t. Intervals over runs and prompts resample both and "
        "are wider.</li><li>Rating: Plackett–Luce over prompt-by-prompt comparisons; it says who would win on a random "
        f"prompt.</li><li>Seeds {_e(', '.join(map(str, board['seeds'])))}. {_e(provenance_line(board))}.</li>"
        f"<li>Recompute everything from the raw episodes: <code>treegym bench verify FOLDER</code>. Suite fingerprint "
        f"<code>{_e(board['suite_fingerprint'])}</code>.</li></ul>"
    )
