"""Two result folders side by side: what changed, and whether the change is more than chance."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from treegym.bench.gathering import AgentRuns, gather
from treegym.bench.results import ResultFolder
from treegym.bench.significance import difference_p_value, holm, improvement, paired_difference
from treegym.errors import DataError

__all__ = ["compare", "comparison_text"]


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str], *, seed: int = 0) -> dict[str, Any]:
    """Returns, for every agent and environment both folders have, how the second folder differs from the first.

    Differences are paired by prompt; p values speak of new training runs and new prompts alike, and are corrected over
    the whole table (Holm).
    """
    folders = ResultFolder(first), ResultFolder(second)
    before, after = (gather(folder.suite(), folder.summaries()) for folder in folders)
    rows = []
    for env, agents in before.items():
        for name, old in agents.items():
            new = after.get(env, {}).get(name)
            if new is not None:
                rows.append(_row(env, name, old, new, seed))
    if not rows:
        raise DataError(f"{folders[0].path} and {folders[1].path} have no agent and environment in common")
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_adjusted"] = adjusted
        row["significant"] = adjusted < 0.05
    return {
        "first": str(folders[0].path),
        "second": str(folders[1].path),
        "rows": rows,
        "only_in_first": _missing(before, after),
        "only_in_second": _missing(after, before),
        "notes": _notes(before, after),
    }


def _row(env: str, name: str, old: AgentRuns, new: AgentRuns, seed: int) -> dict[str, Any]:
    if old.summaries[0]["final"]["prompts"] != new.summaries[0]["final"]["prompts"]:
        raise DataError(
            f"{name} in {env} was evaluated on different prompts in the two folders; they cannot be compared"
        )
    difference = paired_difference([new.prompts], [old.prompts], seed=seed)
    better = improvement([new.scores], [old.scores], seed=seed)
    return {
        "env": env,
        "agent": name,
        "first": round(float(old.prompts.mean()), 6),
        "second": round(float(new.prompts.mean()), 6),
        "difference": [round(value, 6) for value in (difference.point, difference.low, difference.high)],
        "improvement": round(better.point, 6),
        "p": difference_p_value(new.prompts, old.prompts),
        "runs": [len(old.summaries), len(new.summaries)],
    }


def _missing(here: Mapping[str, Mapping[str, Any]], there: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{env} / {name}" for env, agents in here.items() for name in agents if name not in there.get(env, {})]


def _notes(before: Mapping[str, Mapping[str, AgentRuns]], after: Mapping[str, Mapping[str, AgentRuns]]) -> list[str]:
    """Returns what a reader must know before believing the table."""
    said = []
    for env in before.keys() & after.keys():
        trees = [
            {run.get("world") for entry in side[env].values() for run in entry.summaries} for side in (before, after)
        ]
        if trees[0] != trees[1]:
            said.append(f"the two folders walked different trees in {env}, so differences are not the agents' alone")
    if any(
        len(entry.summaries) == 1 for side in (before, after) for agents in side.values() for entry in agents.values()
    ):
        said.append("where an agent has a single run, its p value says nothing about other training runs")
    return sorted(said)


def comparison_text(result: Mapping[str, Any]) -> str:
    """Returns the comparison as a table for people."""
    lines = [f"A: {result['first']}", f"B: {result['second']}", ""]
    header = ["env", "agent", "A", "B", "B - A [95 %]", "P(B > A)", "p (Holm)", ""]
    rows = [
        [
            row["env"],
            row["agent"],
            f"{row['first']:.3f}",
            f"{row['second']:.3f}",
            "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["difference"]),
            f"{row['improvement']:.2f}",
            f"{row['p_adjusted']:.4f}",
            ("better" if row["difference"][0] > 0 else "worse") if row["significant"] else "",
        ]
        for row in result["rows"]
    ]
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *rows]
    ]
    for key, label in (("only_in_first", "Only in A"), ("only_in_second", "Only in B")):
        if result[key]:
            lines.append(f"{label}: {', '.join(result[key])}")
    lines += [f"Note: {note}." for note in result["notes"]]
    return "\n".join(lines)
