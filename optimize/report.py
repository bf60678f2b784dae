"""What an optimisation found: as a dictionary, as a table for people, and as a Pareto plot in text or SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from treegym.optimize.fitness import pareto_front, scores

if TYPE_CHECKING:
    from treegym.optimize.tracker import StrategyTracker
    from treegym.optimize.trials import Evaluated, Trials

__all__ = ["as_svg", "as_text", "pareto_text", "result_of", "summary"]

_WIDTH, _HEIGHT = 56, 14


def result_of(
    trials: Trials, chosen: Evaluated | None, *, kind: str, names: list[str], reasons: dict[str, str],
    tracker: StrategyTracker,
) -> dict[str, Any]:  # fmt: skip
    """Returns what was found on a module.

    Args:
        trials: what was measured.
        chosen: the winner as it was measured once more; None: the original.
        kind: the kind of module, and `names` of the strategies that apply to it.
        reasons: why other strategies do not.
        tracker: what is expected of strategies.
    """
    rows, titles = [[1.0, 1.0, 1.0]], ["original"]
    for one in trials.evaluated:
        if one.measurement is not None:
            m = one.measurement
            rows.append([m.speed.value, m.memory.value, m.accuracy.value])
            titles.append(one.candidate.name)
    front = pareto_front(scores(*np.array(rows).T))
    same = {"value": 1.0, "low": 1.0, "high": 1.0}
    figures = {} if chosen is None or chosen.measurement is None else chosen.measurement.as_dict()
    return {
        "selected_strategy": "original" if chosen is None else chosen.candidate.name,
        "strategies": [] if chosen is None else list(chosen.candidate.strategies),
        "kind": kind,
        "fitness": trials.base_fitness if chosen is None else chosen.fitness,
        "base_fitness": trials.base_fitness,
        "performance_metrics": {
            "speed_improvement": figures.get("speed", dict(same)),
            "memory_efficiency": figures.get("memory", dict(same)),
            "accuracy_preservation": figures.get("accuracy", dict(same)),
            "output_error": figures.get("output_error", 0.0),
            "worst_output": "" if chosen is None or chosen.measurement is None else chosen.measurement.worst,
            "process_memory": figures.get("process_bytes"),
        },
        "candidates": [
            {
                "strategy": one.candidate.name,
                "fitness": one.fitness,
                "measurement": None if one.measurement is None else one.measurement.as_dict(),
                "reason": one.reason,
            }
            for one in trials.evaluated
        ],
        "not_applicable": dict(reasons),
        "not_confirmed": dict(trials.unconfirmed),
        "strategy_weights": tracker.dynamic_weights(kind, names, trials.weights),
        "success_rates": tracker.success_rates(kind, trials.weights),
        "pareto_front": [titles[i] for i in front],
        "pareto_points": [rows[i] for i in front],
        "evaluations": len(trials.evaluated),
    }


def as_text(result: dict[str, Any]) -> str:
    """Returns the candidates with their measurements, best first, and the choice."""
    lines = [f"{'fitness':>8} {'speed':>18} {'memory':>7} {'accuracy':>9} {'error':>9}  candidate"]
    lines.append(f"{result['base_fitness']:8.4f} {'1.00':>18} {'1.00':>7} {'1.0000':>9} {'0':>9}  original")
    for row in sorted(result["candidates"], key=lambda one: -one["fitness"]):
        m = row["measurement"]
        if m is None:
            lines.append(f"{'-':>8} {'-':>18} {'-':>7} {'-':>9} {'-':>9}  {row['strategy']}: {row['reason']}")
            continue
        speed = f"{m['speed']['value']:.2f} [{m['speed']['low']:.2f}, {m['speed']['high']:.2f}]"
        star = " *" if row["strategy"] == result["selected_strategy"] else ""
        lines.append(
            f"{row['fitness']:8.4f} {speed:>18} {m['memory']['value']:7.2f} {m['accuracy']['value']:9.4f} "
            f"{m['output_error']:9.5f}  {row['strategy']}{star}"
        )
    for name, reason in result.get("not_applicable", {}).items():
        lines.append(f"not tried: {name}: {reason}")
    for name, reason in result.get("not_confirmed", {}).items():
        lines.append(f"not confirmed: {name}: {reason}")
    lines.append(f"chosen: {result['selected_strategy']} ({result['kind']} module)")
    return "\n".join(lines)


def summary(result: dict[str, Any]) -> str:
    """Returns the choice and its figures in one line."""
    if not result["strategies"]:
        return "nothing was surely better than the original within the limits: the original is kept"
    metrics = result["performance_metrics"]
    speed, memory = metrics["speed_improvement"], metrics["memory_efficiency"]
    worst = f" (worst: {metrics['worst_output']})" if metrics["worst_output"] else ""
    return (
        f"{result['selected_strategy']}: {speed['value']:.2f}x speed ({speed['low']:.2f} to {speed['high']:.2f}), "
        f"{memory['value']:.2f}x memory, output error {metrics['output_error']:.5f}{worst}"
    )


def pareto_text(result: dict[str, Any]) -> str:
    """Returns a plot of speed (across) and memory (up): ``o`` on the Pareto front, ``.`` not, ``@`` the original."""
    points = _points(result)
    right = max(x for x, _, _ in points) * 1.02
    top = max(y for _, y, _ in points) * 1.02
    left, low = min(x for x, _, _ in points) * 0.98, min(y for _, y, _ in points) * 0.98
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for x, y, mark in sorted(points, key=lambda point: "." in point[2], reverse=True):
        column = min(_WIDTH - 1, int((x - left) / max(right - left, 1e-9) * _WIDTH))
        row = min(_HEIGHT - 1, int((y - low) / max(top - low, 1e-9) * _HEIGHT))
        grid[_HEIGHT - 1 - row][column] = mark
    body = "\n".join(f"{'memory' if i == 0 else '':>7} |{''.join(line)}" for i, line in enumerate(grid))
    axis = f"{'':>7} +{'-' * _WIDTH}\n{'':>9}{left:.2f}x{'speed':^{_WIDTH - 12}}{right:.2f}x"
    return f"{body}\n{axis}"


def as_svg(result: dict[str, Any]) -> str:
    """Returns the Pareto plot as an SVG document, names on the front's points."""
    points = _points(result)
    names = ["original", *[row["strategy"] for row in result["candidates"] if row["measurement"] is not None]]
    right, top = max(x for x, _, _ in points) * 1.05, max(y for _, y, _ in points) * 1.05
    width, height, edge = 640, 420, 50
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">']
    parts.append(f'<rect width="{width}" height="{height}" fill="#fbfaf7"/>')
    parts.append(f'<path d="M{edge} 20V{height - edge}H{width - 20}" fill="none" stroke="#22252b"/>')
    parts.append(f'<text x="{width / 2}" y="{height - 12}" font-size="13">speed, times the original</text>')
    parts.append(f'<text x="14" y="{height / 2}" font-size="13" transform="rotate(-90 14 {height / 2})">memory</text>')
    for (x, y, mark), name in zip(points, names, strict=True):
        cx = edge + x / right * (width - edge - 20)
        cy = height - edge - y / top * (height - edge - 20)
        colour = {"o": "#2563a8", "@": "#b4531f"}.get(mark, "#9aa0a8")
        parts.append(
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="{colour}"><title>{escape(name)}</title></circle>'
        )
        if mark != ".":
            parts.append(f'<text x="{cx + 6:.1f}" y="{cy - 4:.1f}" font-size="10">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _points(result: dict[str, Any]) -> list[tuple[float, float, str]]:
    front = set(result["pareto_front"])
    points = [(1.0, 1.0, "@")]
    for row in result["candidates"]:
        m = row["measurement"]
        if m is not None:
            points.append((m["speed"]["value"], m["memory"]["value"], "o" if row["strategy"] in front else "."))
    return points
