"""Accuracy against tokens: what every agent buys at each price, the optimum by counts, and what nobody can exceed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from treegym.bench.report.charts import DASHES, Axis, Figure, Series, band_of, styles

__all__ = ["spending_chart"]

STEPS = 60  # points that the bound is drawn with
BY_COUNTS, BOUND = "optimum by counts", "told what is right"


def spending_chart(board: Mapping[str, Any]) -> Figure | None:
    """Returns the chart of a suite whose worlds charge for tokens; None for other suites."""
    spent = {
        row["name"]: sorted((env["spent"] for env in row["envs"].values() if "spent" in env), key=lambda s: s["chains"])
        for row in board["agents"]
    }
    spent = {name: points for name, points in spent.items() if points}
    if not spent:
        return None
    counts = sorted(
        (known["by_counts_chains"], known["by_counts_accuracy"]) for known in _known(board, "by_counts_chains")
    )
    widest = max([*(point["chains"] for points in spent.values() for point in points), *(x for x, _ in counts)])
    figure = Figure(
        "Accuracy against tokens",
        "Share of correct answers, with 95 % intervals over runs, against the tokens spent on one; a point for each "
        "price of tokens. Further up and to the left is better. The numbers are in the table below the chart.",
        Axis("tokens spent on an answer, in average chains", 0.0, 1.04 * max(widest, 1e-9)),
        _accuracies(
            [*(point["accuracy"][0] for points in spent.values() for point in points), *(y for _, y in counts)]
        ),
        "Accuracy against tokens spent",
        ["agent", "price of a chain", "chains", "accuracy", "low", "high"],
    )
    rows: list[list[str]] = []
    for number, (name, style) in enumerate(styles(board).items()):
        points = spent.get(name, [])
        places = [(point["chains"], point["accuracy"][0]) for point in points]
        figure.series.append(
            Series(
                name=name,
                points=places,
                style=style,
                band=[band_of(point["accuracy"]) for point in points] if style is not None else (),
                runs=[(x, y) for point in points for x, y in point["runs"]] if style is not None else (),
                dash="" if style is not None else DASHES[number % len(DASHES)],
                notes=[
                    f"{y:.3f} for {x:.2f} chains at {point['price']:g}"
                    for (x, y), point in zip(places, points, strict=True)
                ],
            )
        )
        rows += [
            [
                name,
                f"{point['price']:g}",
                f"{point['chains']:.2f}",
                *("–" if y is None else f"{y:.3f}" for y in point["accuracy"]),
            ]
            for point in points
        ]
    for name, places in ((BY_COUNTS, counts), (BOUND, _bound(board, figure.x.high))):
        if places:
            figure.series.append(Series(name=name, points=places, markers=name == BY_COUNTS, dash="2 3"))
    rows += [[BY_COUNTS, "", f"{x:.2f}", f"{y:.3f}", "–", "–"] for x, y in counts]
    rows += [[f"{BOUND}: reward", f"{price:g}", "", f"{most:.3f}", "–", "–"] for price, most in _lines(board)]
    figure.rows = rows
    figure.avoid(point for series in figure.series if series.markers for point in series.points)
    for series in figure.series:
        figure.label(*series.points[-1 if series.name == BOUND else len(series.points) // 2], series.name)
    return figure


def _accuracies(values: list[float]) -> Axis:
    """Returns an axis from the tenth below everything that was reached up to 1."""
    return Axis("accuracy", max(math.floor(min(values) * 10 - 1e-9) / 10, 0.0), 1.0)


def _known(board: Mapping[str, Any], key: str) -> list[Mapping[str, float]]:
    return [known for known in board["references"].values() if key in known]


def _lines(board: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Returns each price with the reward that nobody exceeds at it."""
    prices = {
        env: part["spent"]["price"] for row in board["agents"] for env, part in row["envs"].items() if "spent" in part
    }
    known = board["references"]
    return sorted((price, known[env]["best_oracle"]) for env, price in prices.items() if "best_oracle" in known[env])


def _bound(board: Mapping[str, Any], widest: float) -> list[tuple[float, float]]:
    """Returns the accuracy that nobody exceeds with so many chains.

    Whoever spends t chains at a price p has a reward of accuracy - p t, which is at most V(p): so accuracy is at most
    the least of V(p) + p t over all prices.
    """
    lines = _lines(board)
    if not lines:
        return []
    across = [widest * step / STEPS for step in range(STEPS + 1)]
    return [(t, min(1.0, *(most + price * t for price, most in lines))) for t in across]
