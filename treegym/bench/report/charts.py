"""The charts of the report: sample efficiency, profiles, proxy against true reward, score against cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treegym.bench.report.svg import Axis, Chart, Series, short_number

__all__ = ["AXES", "Figure", "cost_chart", "efficiency_charts", "profile_chart", "proxy_chart", "styles"]

AXES = {"env_steps": "environment steps", "forward_passes": "model forward passes", "cpu_seconds": "CPU seconds"}
DASHES = ("5 4", "2 3", "8 3 2 3", "1 4", "10 4")
LOG_FROM = 8  # a range of more than this factor is drawn on a log axis


class Figure:
    """A chart, and the same numbers as a table for those who cannot see it or want to copy them."""

    def __init__(self, svg: str, caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self.svg, self.caption, self.header, self.rows = svg, caption, list(header), [list(row) for row in rows]


def styles(board: Mapping[str, Any]) -> dict[str, int | None]:
    """Returns each agent's colour: learners are numbered in the order of the leaderboard, the others are muted."""
    numbers: dict[str, int | None] = {}
    for row in board["agents"]:
        learns = any(len(env["curve"]) > 1 for env in row["envs"].values())
        numbers[row["name"]] = len([n for n in numbers.values() if n is not None]) if learns else None
    return numbers


def efficiency_charts(board: Mapping[str, Any], env: str) -> list[Figure]:
    """Returns score against each of the three costs for one environment."""
    colours = styles(board)
    figures = []
    top = _score_axis(board, env)
    for unit, label in AXES.items():
        curves = {row["name"]: row["envs"][env]["curve"] for row in board["agents"]}
        learners = {
            name: [point for point in curve if point[unit] is not None]
            for name, curve in curves.items()
            if colours[name] is not None and len(curve) > 1
        }
        ends = [curve[-1][unit] for curve in learners.values() if curve]
        if not ends:
            continue
        axis = _cost_axis(label, ends, [p[unit] for curve in learners.values() for p in curve])
        title = f"{env}: score against {label}"
        best = max(learners, key=lambda name: learners[name][-1]["score"][0] if learners[name] else -math.inf)
        chart = Chart(
            title,
            f"Interquartile mean of the score over training runs, with 95 % intervals, for {len(learners)} "
            f"learning agents as {label} grow. {best} ends highest, at {learners[best][-1]['score'][0]:.3f}. "
            "The numbers are in the table below the chart.",
            axis,
            top,
        )
        _references(chart, board, env, {name: curves[name] for name, style in colours.items() if style is None})
        for name, curve in learners.items():
            shown = [point for point in curve if not axis.log or point[unit] >= axis.low]
            chart.line(
                Series(
                    name,
                    [(point[unit], point["score"][0]) for point in shown],
                    style=colours[name],
                    band=[_band(point["score"]) for point in shown],
                    notes=[f"{point['score'][0]:.3f} at {short_number(point[unit])}" for point in shown],
                )
            )
        rows = [
            [name, short_number(point[unit]), *(_text(value) for value in point["score"])]
            for name, curve in learners.items()
            for point in curve
        ]
        figures.append(Figure(chart.render(), f"Score against {label}", ["agent", label, "IQM", "low", "high"], rows))
    return figures


def profile_chart(board: Mapping[str, Any]) -> Figure:
    """Returns, for every score, the share of runs and tasks that reach more."""
    colours, thresholds = styles(board), board["thresholds"]
    chart = Chart(
        "Performance profiles",
        "For every score from 0 to 1, the share of (run, task kind) pairs above it. A line further up and to the right "
        "is better throughout; lines that cross trade reliability for peaks.",
        Axis("score τ", 0.0, 1.0),
        Axis("share of runs and tasks above τ", 0.0, 1.0),
    )
    for i, row in enumerate(board["agents"]):
        profile = row["profile"]
        low = [0.0 if value is None else value for value in profile["low"]]
        high = [0.0 if value is None else value for value in profile["high"]]
        known = profile["low"][0] is not None
        chart.line(
            Series(
                row["name"],
                list(zip(thresholds, profile["point"], strict=True)),
                style=colours[row["name"]],
                band=list(zip(low, high, strict=True)) if known and colours[row["name"]] is not None else (),
                markers=False,
                dash="" if colours[row["name"]] is not None else DASHES[i % len(DASHES)],
            )
        )
    shown = range(0, len(thresholds), 10)
    rows = [[row["name"], *(f"{row['profile']['point'][i]:.2f}" for i in shown)] for row in board["agents"]]
    return Figure(
        chart.render(),
        "Share of runs and tasks above each score",
        ["agent", *(f"> {thresholds[i]:g}" for i in shown)],
        rows,
    )


def proxy_chart(board: Mapping[str, Any], env: str) -> Figure:
    """Returns true against proxy reward along training: a line that goes right but not up is being hacked."""
    colours = styles(board)
    paths = {
        row["name"]: [
            (p["proxy"], p["true"])
            for p in row["envs"][env]["curve"]
            if p["proxy"] is not None and p["true"] is not None
        ]
        for row in board["agents"]
    }
    everything = [point for path in paths.values() for point in path]
    chart = Chart(
        f"{env}: true against proxy reward",
        "Each agent's path through training: across, the return it is trained on; up, the verifier's score. Its last "
        "evaluation is its last mark. Moving right without moving up means the proxy is being exploited.",
        _padded("proxy: return under the training reward", [p for p, _ in everything]),
        _padded("true: verifier's score", [t for _, t in everything]),
    )
    for name, path in paths.items():
        steps = [f"proxy {p:.3f}, true {t:.3f}" for p, t in path]
        chart.line(Series(name, path, style=colours[name], notes=steps))
    rows = [
        [name, _text(path[0][0]), _text(path[0][1]), _text(path[-1][0]), _text(path[-1][1])]
        for name, path in paths.items()
        if path
    ]
    header = ["agent", "proxy at first", "true at first", "proxy at last", "true at last"]
    return Figure(chart.render(), "True against proxy reward during training", header, rows)


def cost_chart(board: Mapping[str, Any]) -> Figure:
    """Returns final score against the CPU seconds that training took."""
    colours = styles(board)
    learners = [row for row in board["agents"] if colours[row["name"]] is not None and row["cost"]["cpu_seconds"]]
    seconds = [row["cost"]["cpu_seconds"] for row in learners]
    axis = _cost_axis("CPU seconds of training, mean of runs", seconds or [1.0], seconds or [1.0])
    chart = Chart(
        "Score against training cost",
        "Final interquartile mean against the CPU seconds one training run took. Up and to the left is better.",
        axis,
        Axis("score (IQM)", 0.0, 1.0),
    )
    for row in learners:
        x, y = max(row["cost"]["cpu_seconds"], axis.low), row["iqm"][0]
        chart.line(
            Series(row["name"], [(x, y)], style=colours[row["name"]], notes=[f"{y:.3f} for {short_number(x)} s"])
        )
        late = axis.position(x) > 0.75
        chart.label(x, y + 0.025, row["name"], anchor="end" if late else "start")
    rows = [[row["name"], f"{row['cost']['cpu_seconds']:.1f}", _text(row["iqm"][0])] for row in learners]
    return Figure(chart.render(), "Final score against CPU seconds of training", ["agent", "CPU seconds", "IQM"], rows)


def _references(chart: Chart, board: Mapping[str, Any], env: str, baselines: Mapping[str, Sequence[Any]]) -> None:
    """Adds level lines for agents that do not learn, and for the exact optimum, with labels that keep apart."""
    levels = {name: curve[-1]["score"][0] for name, curve in baselines.items() if curve}
    if "optimum" in (known := board["references"].get(env, {})):
        levels["exact optimum"] = known["optimum"]
    taken: list[float] = []
    gap = 0.042 * (chart.y.high - chart.y.low)
    for i, (name, level) in enumerate(sorted(levels.items(), key=lambda item: item[1])):
        ends = [(chart.x.low, level), (chart.x.high, level)]
        chart.line(Series(name, ends, markers=False, dash=DASHES[i % len(DASHES)]))
        place = level + 0.25 * gap
        while any(abs(place - other) < gap for other in taken):
            place += 0.1 * gap
        taken.append(place)
        chart.label(chart.x.high, place, name, anchor="end")


def _score_axis(board: Mapping[str, Any], env: str) -> Axis:
    highest = max(
        [point["score"][0] for row in board["agents"] for point in row["envs"][env]["curve"]] + [0.0], default=1.0
    )
    lowest = min([point["score"][0] for row in board["agents"] for point in row["envs"][env]["curve"]] + [0.0])
    return Axis("score (IQM)", min(0.0, lowest), max(1.05, highest * 1.05))


def _cost_axis(label: str, ends: Sequence[float], values: Sequence[float]) -> Axis:
    high = max(ends)
    if high <= 0:
        return Axis(label, 0.0, 1.0)
    positive = [value for value in values if value > 0]
    if max(ends) / max(min(ends), 1e-9) > LOG_FROM:
        return Axis(label, min(positive) * 0.9, high * 1.1, log=True)
    return Axis(label, 0.0, high * 1.04)


def _padded(label: str, values: Sequence[float]) -> Axis:
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.06 * (high - low) or 0.5
    return Axis(label, low - room, high + room)


def _band(ends: Sequence[float | None]) -> tuple[float, float]:
    point, low, high = ends
    assert point is not None
    return (point if low is None else low, point if high is None else high)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
