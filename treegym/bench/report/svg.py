"""Charts as inline SVG: axes, lines with bands, points. Colours are CSS variables, so a page's theme reaches them.

Every chart carries a title and a description for screen readers, and every mark a tooltip.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Axis", "Chart", "Series", "linear_ticks", "log_ticks", "short_number"]

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 10, 44
MARKERS = ("circle", "square", "diamond", "up", "down")
_ids = itertools.count(1)


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


@dataclass(frozen=True)
class Series:
    """One line: points in order, optionally the ends of an interval at each."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int | None = None  # which colour and marker; None for a muted reference line
    band: Sequence[tuple[float, float]] = field(default_factory=tuple)  # low and high at each point
    markers: bool = True
    dash: str = ""
    notes: Sequence[str] = field(default_factory=tuple)  # a tooltip for each point


class Chart:
    """Draws series into a fixed frame; `render` returns the SVG."""

    def __init__(self, title: str, description: str, x: Axis, y: Axis, *, height: int = HEIGHT) -> None:
        self.title, self.description, self.x, self.y = title, description, x, y
        self.height = height
        self._parts: list[str] = []

    def _at(self, x: float, y: float) -> tuple[float, float]:
        across = LEFT + self.x.position(x) * (WIDTH - LEFT - RIGHT)
        down = TOP + (1 - self.y.position(y)) * (self.height - TOP - BOTTOM)
        return round(across, 1), round(min(max(down, TOP - 4), self.height - BOTTOM + 4), 1)

    def line(self, series: Series) -> None:
        """Adds a line with its band and markers."""
        where = [self._at(x, y) for x, y in series.points]
        look = "ref" if series.style is None else f"s{series.style % 10}"
        parts = [f'<g class="series {look}" data-name="{html.escape(series.name, quote=True)}">']
        if series.band and len(series.points) > 1:
            upper = [self._at(x, high) for (x, _), (_, high) in zip(series.points, series.band, strict=True)]
            lower = [self._at(x, low) for (x, _), (low, _) in zip(series.points, series.band, strict=True)]
            parts.append(f'<path class="band" d="{_path([*upper, *reversed(lower)])}Z"/>')
        if len(where) > 1:
            dash = f' stroke-dasharray="{series.dash}"' if series.dash else ""
            parts.append(f'<path class="line"{dash} d="{_path(where)}"/>')
        if series.markers:
            for i, (x, y) in enumerate(where):
                note = series.notes[i] if i < len(series.notes) else ""
                parts.append(_marker(series.style or 0, x, y, f"{series.name}: {note}" if note else series.name))
        parts.append("</g>")
        self._parts.append("".join(parts))

    def label(self, x: float, y: float, text: str, *, anchor: str = "start", css: str = "note") -> None:
        """Adds a piece of text at a place in data coordinates."""
        across, down = self._at(x, y)
        self._parts.append(
            f'<text class="{css}" x="{across}" y="{down}" text-anchor="{anchor}">{html.escape(text)}</text>'
        )

    def render(self) -> str:
        """Returns the finished SVG element."""
        number = next(_ids)
        bottom, right = self.height - BOTTOM, WIDTH - RIGHT
        frame = [f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>']
        for tick in self.y.ticks():
            _, down = self._at(self.x.low, tick)
            frame.append(f'<line class="grid" x1="{LEFT}" y1="{down}" x2="{right}" y2="{down}"/>')
            frame.append(
                f'<text class="tick" x="{LEFT - 6}" y="{down + 4}" text-anchor="end">{short_number(tick)}</text>'
            )
        for tick in self.x.ticks():
            across, _ = self._at(tick, self.y.low)
            frame.append(f'<line class="axis" x1="{across}" y1="{bottom}" x2="{across}" y2="{bottom + 4}"/>')
            text = short_number(tick)
            frame.append(f'<text class="tick" x="{across}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
        middle = (LEFT + right) / 2
        scale = " (log scale)" if self.x.log else ""
        frame.append(
            f'<text class="label" x="{middle}" y="{self.height - 6}" text-anchor="middle">'
            f"{html.escape(self.x.label)}{scale}</text>"
        )
        high = (TOP + bottom) / 2
        frame.append(
            f'<text class="label" transform="translate(12 {high}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(self.y.label)}</text>"
        )
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-labelledby="t{number} d{number}"><title id="t{number}">{html.escape(self.title)}</title>'
            f'<desc id="d{number}">{html.escape(self.description)}</desc>{"".join(frame)}{"".join(self._parts)}</svg>'
        )


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _marker(style: int, x: float, y: float, note: str) -> str:
    shape = MARKERS[style % len(MARKERS)]
    tip = f"<title>{html.escape(note)}</title>"
    if shape == "circle":
        return f'<circle class="mark" cx="{x}" cy="{y}" r="3.2">{tip}</circle>'
    outline: Callable[[float], str] = {
        "square": lambda r: f"M{x - r} {y - r}h{2 * r}v{2 * r}h{-2 * r}Z",
        "diamond": lambda r: f"M{x} {y - 1.3 * r}L{x + 1.3 * r} {y}L{x} {y + 1.3 * r}L{x - 1.3 * r} {y}Z",
        "up": lambda r: f"M{x} {y - 1.2 * r}L{x + 1.2 * r} {y + r}H{x - 1.2 * r}Z",
        "down": lambda r: f"M{x} {y + 1.2 * r}L{x + 1.2 * r} {y - r}H{x - 1.2 * r}Z",
    }[shape]
    return f'<path class="mark" d="{outline(2.9)}">{tip}</path>'


def marker_swatch(style: int) -> str:
    """Returns a series' line and marker as a small SVG for legends; decorative, since the name stands beside it."""
    return (
        f'<svg class="swatch" viewBox="0 0 26 12" aria-hidden="true"><g class="series s{style % 10}">'
        f'<path class="line" d="M1 6H25"/>{_marker(style, 13, 6, "")}</g></svg>'
    )


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
