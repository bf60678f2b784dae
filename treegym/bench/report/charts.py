"""What the report's charts show, and where: numbers and places here, shapes in the template ``chart.svg``.

Places are in the picture's own coordinates, 460 wide and 320 high. Colours are CSS variables, so a page's theme
reaches them. Every chart carries its numbers as a table too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["AXES", "Axis", "Figure", "Series", "band_of", "cost_chart", "efficiency_charts", "linear_ticks",
           "log_ticks", "profile_chart", "proxy_chart", "short_number", "styles"]  # fmt: skip

AXES = {
    "env_steps": "environment steps",
    "forward_passes": "model forward passes",
    "cpu_seconds": "CPU seconds",
    "verdicts": "verdicts asked",
}
WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 46, 446, 10, 276  # the frame that data are drawn in
LETTER, LINE = 5.9, 12.0  # the size of a label's letters
DASHES = ("5 4", "2 3", "8 3 2 3", "1 4", "10 4")
LOG_FROM = 8  # a range of more than this factor is drawn on a log axis
_Place = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows, from where to where."""

    label: str
    low: float
    high: float
    log: bool = False

    def position(self, value: float) -> float:
        """Returns where a value lies, from 0 at the low end to 1 at the high end."""
        if self.log:
            return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: points in order, optionally the ends of an interval at each."""

    name: str
    points: Sequence[_Place]
    style: int | None = None  # which colour and marker; None for a muted reference line
    band: Sequence[_Place] = ()  # low and high at each point
    runs: Sequence[_Place] = ()  # single runs, drawn small
    markers: bool = True
    dash: str = ""
    notes: Sequence[str] = ()  # a tooltip for each point


@dataclass
class Figure:
    """A chart, and the same numbers as a table for those who cannot see it or want to copy them."""

    title: str
    description: str
    x: Axis
    y: Axis
    caption: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    series: list[Series] = field(default_factory=list)
    labels: list[tuple[float, float, str, str]] = field(default_factory=list)  # x, y, text, anchor; in the picture
    _taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def at(self, x: float, y: float) -> _Place:
        """Returns where in the picture a point of the data lies."""
        down = BOTTOM - self.y.position(y) * (BOTTOM - TOP)
        return round(LEFT + self.x.position(x) * (RIGHT - LEFT), 1), round(min(max(down, TOP - 4), BOTTOM + 4), 1)

    def path(self, points: Iterable[_Place]) -> str:
        """Returns a line through points of the data, as SVG writes it."""
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in (self.at(*point) for point in points))

    def outline(self, series: Series) -> str:
        """Returns the area between the ends of a series' intervals."""
        upper = [(x, high) for (x, _), (_, high) in zip(series.points, series.band, strict=True)]
        lower = [(x, low) for (x, _), (low, _) in zip(series.points, series.band, strict=True)]
        return self.path([*upper, *reversed(lower)]) + "Z"

    def avoid(self, points: Iterable[_Place], radius: float = 4.0) -> None:
        """Keeps labels off marks."""
        for x, y in (self.at(*point) for point in points):
            self._taken.append((x - radius, y - radius, x + radius, y + radius))

    def label(self, x: float, y: float, text: str, *, anchor: str = "") -> None:
        """Writes text near a point of the data: at the nearest place where it meets no other label and no mark."""
        across, down = self.at(x, y)
        width = LETTER * len(text)
        sides = [anchor] if anchor else ["end", "start"] if across + width > RIGHT else ["start", "end"]
        tries = [(side, shift) for step in range(24) for shift in {step * 4.0, -step * 4.0} for side in sides]
        for side, shift in sorted(tries, key=lambda entry: (abs(entry[1]), entry[1], sides.index(entry[0]))):
            left = across + 7 if side == "start" else across - width - (0 if anchor else 7)
            box = (left, down + shift - LINE / 2, left + width, down + shift + LINE / 2)
            inside = left >= LEFT and box[2] <= WIDTH and box[1] >= TOP - 6 and box[3] <= BOTTOM
            if inside and not any(_meet(box, other) for other in self._taken):
                self._taken.append(box)
                start = left if side == "start" else left + width
                self.labels.append((round(start, 1), round(down + shift + 4, 1), text, side))
                return


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def styles(board: Mapping[str, Any]) -> dict[str, int | None]:
    """Returns each agent's colour: learners are numbered in the order of the leaderboard, the others are muted."""
    learners = [row["name"] for row in board["agents"] if any(len(env["curve"]) > 1 for env in row["envs"].values())]
    return {row["name"]: learners.index(row["name"]) if row["name"] in learners else None for row in board["agents"]}


def efficiency_charts(board: Mapping[str, Any], env: str) -> list[Figure]:
    """Returns score against each of the costs for one environment."""
    colours, figures = styles(board), []
    curves = {row["name"]: row["envs"][env]["curve"] for row in board["agents"]}
    for unit, label in AXES.items():
        learners = {
            name: known
            for name, curve in curves.items()
            if colours[name] is not None and len(curve) > 1
            if (known := [point for point in curve if point.get(unit) is not None])
        }
        if not any(curve[-1][unit] > 0 for curve in learners.values()):
            continue
        single = {row["name"]: row["envs"][env].get("runs", ()) for row in board["agents"]}
        ends = [curve[-1][unit] for curve in learners.values()]
        latest = max([run[unit] for name in learners for run in single[name] if run.get(unit)], default=0.0)
        axis = _cost_axis(label, [*ends, max(latest, *ends)], [p[unit] for curve in learners.values() for p in curve])
        best = max(learners, key=lambda name: learners[name][-1]["score"][0])
        figure = Figure(
            f"{env}: score against {label}",
            f"Interquartile mean of the score over training runs, with 95 % intervals, for {len(learners)} "
            f"learning agents as {label} grow. {best} ends highest, at {learners[best][-1]['score'][0]:.3f}. "
            "The numbers are in the table below the chart.",
            axis,
            _score_axis(board, env),
            f"Score against {label}",
            ["agent", label, "IQM", "low", "high"],
            [
                [name, short_number(point[unit]), *map(_text, point["score"])]
                for name, curve in learners.items()
                for point in curve
            ],
        )
        _references(figure, board, env, {name: curves[name] for name, style in colours.items() if style is None})
        for name, curve in learners.items():
            shown = [point for point in curve if not axis.log or point[unit] >= axis.low]
            figure.series.append(
                Series(
                    name=name,
                    points=[(point[unit], point["score"][0]) for point in shown],
                    style=colours[name],
                    band=[band_of(point["score"]) for point in shown],
                    runs=[(run[unit], run["score"]) for run in single[name] if run.get(unit)],
                    notes=[f"{point['score'][0]:.3f} at {short_number(point[unit])}" for point in shown],
                )
            )
        figures.append(figure)
    return figures


def profile_chart(board: Mapping[str, Any]) -> Figure:
    """Returns, for every score, the share of runs and tasks that reach more."""
    colours, thresholds = styles(board), board["thresholds"]
    shown = range(0, len(thresholds), 10)
    figure = Figure(
        "Performance profiles",
        "For every score from 0 to 1, the share of (run, task kind) pairs above it. A line further up and to the right "
        "is better throughout; lines that cross trade reliability for peaks.",
        Axis("score τ", 0.0, 1.0),
        Axis("share of runs and tasks above τ", 0.0, 1.0),
        "Share of runs and tasks above each score",
        ["agent", *(f"> {thresholds[i]:g}" for i in shown)],
        [[row["name"], *(f"{row['profile']['point'][i]:.2f}" for i in shown)] for row in board["agents"]],
    )
    for i, row in enumerate(board["agents"]):
        profile, style = row["profile"], colours[row["name"]]
        ends = list(zip(profile["low"], profile["high"], strict=True))
        figure.series.append(
            Series(
                name=row["name"],
                points=list(zip(thresholds, profile["point"], strict=True)),
                style=style,
                band=[(low or 0.0, high or 0.0) for low, high in ends]
                if style is not None and ends[0][0] is not None
                else (),
                markers=False,
                dash="" if style is not None else DASHES[i % len(DASHES)],
            )
        )
    return figure


def proxy_chart(board: Mapping[str, Any], env: str) -> Figure:
    """Returns true against proxy reward along training: a line that goes right but not up is being hacked."""
    paths = {
        row["name"]: [
            (point["proxy"], point["true"])
            for point in row["envs"][env]["curve"]
            if point["proxy"] is not None and point["true"] is not None
        ]
        for row in board["agents"]
    }
    everything = [point for path in paths.values() for point in path]
    figure = Figure(
        f"{env}: true against proxy reward",
        "Each agent's path through training: across, the return it is trained on; up, the verifier's score. Its last "
        "evaluation is its last mark. Moving right without moving up means the proxy is being exploited.",
        _padded("proxy: return under the training reward", [p for p, _ in everything]),
        _padded("true: verifier's score", [t for _, t in everything]),
        "True against proxy reward during training",
        ["agent", "proxy at first", "true at first", "proxy at last", "true at last"],
        [[name, *map(_text, (*path[0], *path[-1]))] for name, path in paths.items() if path],
    )
    for name, style in styles(board).items():
        notes = [f"proxy {p:.3f}, true {t:.3f}" for p, t in paths[name]]
        figure.series.append(Series(name=name, points=paths[name], style=style, notes=notes))
    return figure


def cost_chart(board: Mapping[str, Any], unit: str = "cpu_seconds") -> Figure:
    """Returns final score against what training cost."""
    colours, label = styles(board), AXES[unit]
    learners = [row for row in board["agents"] if colours[row["name"]] is not None and row["cost"].get(unit)]
    costs = [row["cost"][unit] for row in learners] or [1.0]
    figure = Figure(
        f"Score against training cost in {label}",
        f"Final interquartile mean against the {label} that one training run took. Up and to the left is better.",
        _cost_axis(f"{label} of training, mean of runs", costs, costs),
        Axis("score (IQM)", 0.0, 1.0),
        f"Final score against {label} of training",
        ["agent", label, "IQM"],
        [[row["name"], f"{row['cost'][unit]:,.1f}", _text(row["iqm"][0])] for row in learners],
    )
    for row in learners:
        place = max(row["cost"][unit], figure.x.low), row["iqm"][0]
        note = f"{place[1]:.3f} for {short_number(place[0])}"
        figure.series.append(Series(name=row["name"], points=[place], style=colours[row["name"]], notes=[note]))
    figure.avoid(series.points[0] for series in figure.series)
    for series in figure.series:
        figure.label(*series.points[0], series.name)
    return figure


def _references(figure: Figure, board: Mapping[str, Any], env: str, baselines: Mapping[str, Sequence[Any]]) -> None:
    """Adds level lines for agents that do not learn, and for the exact optimum, with labels that keep apart."""
    levels = {name: curve[-1]["score"][0] for name, curve in baselines.items() if curve}
    if "optimum" in (known := board["references"].get(env, {})):
        levels["exact optimum"] = known["optimum"]
    for i, (name, level) in enumerate(sorted(levels.items(), key=lambda item: item[1])):
        ends = [(figure.x.low, level), (figure.x.high, level)]
        figure.series.append(Series(name=name, points=ends, markers=False, dash=DASHES[i % len(DASHES)]))
        figure.label(figure.x.high, level, name, anchor="end")


def _score_axis(board: Mapping[str, Any], env: str) -> Axis:
    scores = [point["score"][0] for row in board["agents"] for point in row["envs"][env]["curve"]]
    return Axis("score (IQM)", min([0.0, *scores]), max([1.05, *(1.05 * score for score in scores)]))


def _cost_axis(label: str, ends: Sequence[float], values: Sequence[float]) -> Axis:
    high = max(ends)
    if high <= 0:
        return Axis(label, 0.0, 1.0)
    if high / max(min(ends), 1e-9) > LOG_FROM:
        return Axis(label, min(value for value in values if value > 0) * 0.9, high * 1.1, log=True)
    return Axis(label, 0.0, high * 1.04)


def _padded(label: str, values: Sequence[float]) -> Axis:
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.06 * (high - low) or 0.5
    return Axis(label, low - room, high + room)


def band_of(ends: Sequence[float | None]) -> _Place:
    point, low, high = ends
    assert point is not None
    return (point if low is None else low, point if high is None else high)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Returns round values within a range, about so many."""
    span = high - low
    step = 10 ** math.floor(math.log10(span / about))
    for factor in (1, 2, 2.5, 5, 10):
        if span / (step * factor) <= about + 0.5:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    count = math.floor((high - first * step) / step + 1e-9)
    return [round((first + i) * step, 12) for i in range(count + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten within a range, with values between them where there is room."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = math.log10(high / low)
    factors = (1,) if decades > 3.5 else (1, 3) if decades > 1.5 else (1, 2, 5)
    ticks = [f * 10.0**p for p in powers for f in factors]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def short_number(value: float) -> str:
    """Returns a number as people write it on an axis: 0.25, 1.5k, 20M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
