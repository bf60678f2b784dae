"""The report as one HTML page without network: light and dark, readable on a phone and by a screen reader.

The page is ``templates/page.html``; here is what it needs beyond the leaderboard itself.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from treegym.bench.report import charts
from treegym.bench.report.spending import spending_chart
from treegym.bench.report.tables import ends, failures, interval, number, plan, provenance_line, settings_text
from treegym.errors import require

__all__ = ["as_html"]

FOREST = 180  # the width of a leaderboard row's interval, without its margins
COSTS = ("env_steps", "forward_passes", "cpu_seconds", "verdicts", "simulations", "judge_calls", "discarded_groups")


def as_html(board: Mapping[str, Any]) -> str:
    """Returns the whole page."""
    jinja2: Any = require("jinja2", extra="bench", purpose="writing the report")
    folder = resources.files("treegym.bench.report") / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "interval": interval, "ends": ends, "short": charts.short_number}
    env_names = list(board["prompts"])
    header, failed = failures(board)
    page: str = environment.get_template("page.html").render(
        board=board,
        css=(folder / "report.css").read_text(encoding="utf-8"),
        script=(folder / "report.js").read_text(encoding="utf-8"),
        chart=charts,
        fresh_id=functools.partial(next, itertools.count(1)),
        styles=charts.styles(board),
        verdict=verdict(board),
        marks=list(marks(board)),
        forest=forest,
        top=max([1.0, *(row["iqm"][2] or row["iqm"][0] for row in board["agents"])]),
        used=[name for name in COSTS if any(row["cost"].get(name) for row in board["agents"])],
        efficiency={env: charts.efficiency_charts(board, env) for env in env_names},
        spending=spending_chart(board),
        profile=charts.profile_chart(board),
        proxies={env: charts.proxy_chart(board, env) for env in env_names},
        frontiers=[
            charts.cost_chart(board, unit) for unit in ("cpu_seconds", "forward_passes") if _differs(board, unit)
        ],
        kinds={
            env: sorted({kind for row in board["agents"] for kind in row["envs"][env]["kinds"]}) for env in env_names
        },
        worst={env: _worst(board, env) for env in env_names},
        failed_header=header,
        failed=failed,
        plan=plan(board),
        settings=settings_text,
        provenance=provenance_line(board),
    )
    return page


def verdict(board: Mapping[str, Any]) -> str:
    """Returns the result in a sentence or two."""
    rows = board["agents"]
    if not rows:
        return "No agent has finished in every environment yet."
    said = f"{rows[0]['name']} leads with an interquartile mean of {interval(rows[0]['iqm'])}."
    apart = sum(_apart(above["iqm"], below["iqm"]) for above, below in itertools.pairwise(rows))
    if len(rows) > 1:
        said += f" {apart} of {len(rows) - 1} neighbouring pairs have intervals that do not overlap."
    return said


def _apart(above: Sequence[float | None], below: Sequence[float | None]) -> bool:
    return above[1] is not None and below[2] is not None and above[1] > below[2]


def marks(board: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields what the exact optimum and chance score, where they are known."""
    for name, key in (("optimum", "optimum"), ("chance", "random")):
        known = [values[key] for values in board["references"].values() if key in values]
        if known:
            yield name, sum(known) / len(known)


def forest(value: float, top: float) -> float:
    """Returns where on a leaderboard row's line a score lies."""
    return round(4 + max(value, 0.0) * FOREST / top, 1)


def _differs(board: Mapping[str, Any], unit: str) -> bool:
    """Returns whether a cost tells learners apart; CPU seconds are always shown."""
    costs = {row["cost"].get(unit) for row in board["agents"]} - {None, 0.0}
    return unit == "cpu_seconds" or len(costs) > 1


def _worst(board: Mapping[str, Any], env: str) -> float:
    regrets = [kind.get("regret") or 0.0 for row in board["agents"] for kind in row["envs"][env]["kinds"].values()]
    return max([*regrets, 1e-9])
