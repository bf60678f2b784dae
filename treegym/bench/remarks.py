"""What a reader must know beside the numbers: what is missing or failed, what agents are given that others are not."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from treegym.bench.gathering import AgentRuns
from treegym.bench.suite import Suite

__all__ = ["failed_rewards", "planner_sees", "said_of_failures", "told", "turns", "warnings"]


def planner_sees(agents: Mapping[str, AgentRuns]) -> str:
    """Returns what planning agents are told of held-out prompts: no verdict, unless their settings say otherwise."""
    told = [name for name, entry in agents.items() if _sees(entry.summaries[0]) == "verifier"]
    return f"the verifier ({', '.join(told)})" if told else "no verdict"


def _sees(summary: Mapping[str, Any]) -> str:
    settings = summary["hyperparameters"]
    return str(settings.get("planner_sees", settings.get("sees", "")))


def warnings(
    suite: Suite, runs: Mapping[str, Mapping[str, AgentRuns]], everyone: Sequence[Mapping[str, Any]], expected: int
) -> list[str]:
    said = []
    if len(everyone) < expected:
        said.append(
            f"{expected - len(everyone)} of {expected} runs are missing; give the same command again to run them."
        )
    for env in suite.envs:
        absent = [agent.name for agent in suite.agents if agent.name not in runs.get(env.name, {})]
        if absent:
            said.append(f"Not ranked, since they have no finished run in {env.name}: {', '.join(absent)}.")
    if len(suite.seeds) < 5:
        said.append(f"Only {len(suite.seeds)} seeds; five or more make intervals that can be relied on.")
    idle = {run["agent"]: None for run in everyone if run["training"] is not None and run["cost"].get("updates") == 0}
    if idle:
        said.append(
            f"Made no update within the budget in some run, so learned nothing there: {', '.join(idle)}; give a larger "
            "budget, or let them learn from fewer steps at a time (n_steps x lanes, n_episodes)."
        )
    for what, label in (("git", "git revisions"), ("hardware", "machines")):
        seen = Counter(str(run.get("provenance", {}).get(what)) for run in everyone)
        if len(seen) > 1:
            said.append(f"The runs come from {len(seen)} different {label}.")
    if any("+changes" in str(run.get("provenance", {}).get("git")) for run in everyone):
        said.append("Some runs come from a checkout with uncommitted changes.")
    return said


def told(rows: Sequence[Mapping[str, Any]], runs: Mapping[str, Mapping[str, AgentRuns]]) -> list[str]:
    """Returns what agents are given in training that others are not: verdicts within searches, exploring starts."""
    said = []
    exploring = []
    least = min((row["cost"]["forward_passes"] for row in rows if row["cost"]["forward_passes"]), default=None)
    for row in rows:
        everyone = [
            run for env in row["envs"] for run in runs[env][row["name"]].summaries if run["training"] is not None
        ]
        share = _inner_share(everyone)
        if not any(run["hyperparameters"].get("selfplay_sees") == "verifier" for run in everyone):
            if share:
                exploring.append(f"{row['name']} ({share:.0%})")
            continue
        passes, asked = row["cost"]["forward_passes"], row["cost"].get("verdicts")
        line = f"{row['name']}: its searches in training are told the verdict of every end they reach"
        line += f" (up to {asked:,.0f} per run)" if asked else ""
        line += f", {share:.0%} of its episodes begin at inner nodes" if share is not None else ""
        if passes and least:
            line += f", and it makes {passes / least:.1f} times the forward passes of the cheapest learner"
        said.append(line + ".")
    if exploring:
        said.append(f"Episodes of training begin at inner nodes, too, of {', '.join(exploring)}.")
    return said


def _inner_share(everyone: Sequence[Mapping[str, Any]]) -> float | None:
    """Returns the share of training episodes that began at inner nodes; None where older runs did not count them."""
    if not everyone or not all("exploring_starts" in run["training"] for run in everyone):
        return None
    inner, count = (sum(run["training"][key] for run in everyone) for key in ("exploring_starts", "count"))
    return float(inner / max(count, 1))


def turns(rows: Sequence[Mapping[str, Any]], suite: Suite) -> list[str]:
    """Returns where the order of two agents depends on the environment, or on what was budgeted, beyond chance."""
    said = []
    for first, second in itertools.combinations(suite.envs, 2):
        turned = [
            f"{a['name']} and {b['name']}"
            for a, b in itertools.combinations(rows, 2)
            if _order(a, b, first.name) * _order(a, b, second.name) < 0
        ]
        if turned:
            said.append(f"The order changes between {first.name} and {second.name}: {', '.join(turned)}.")
    return said


def _order(a: Mapping[str, Any], b: Mapping[str, Any], env: str) -> int:
    """Returns 1 where the first agent's interval lies above the second's in an environment, -1 below, 0 otherwise."""
    (_, low, high), (_, other_low, other_high) = a["envs"][env]["iqm"], b["envs"][env]["iqm"]
    if None in (low, high, other_low, other_high):
        return 0
    return int(low > other_high) - int(high < other_low)


def failed_rewards(runs: Mapping[str, Mapping[str, AgentRuns]]) -> list[dict[str, Any]]:
    """Returns, where rewards failed, in how many episodes they did and of how many, as ``[failed, of]``."""
    rows = []
    for env, agents in runs.items():
        for name, entry in agents.items():
            # Runs from before failures were counted say nothing about their episodes.
            counted = [run for run in entry.summaries if run.get("failed_rewards") is not None]
            training, evaluation = (
                sum(run["failed_rewards"][p] for run in counted) for p in ("training", "evaluation")
            )
            if training or evaluation:
                trained = sum(run["training"]["count"] for run in counted if run["training"] is not None)
                evaluated = sum(run["episodes"]["count"] for run in counted)
                rows.append(
                    {"env": env, "agent": name, "training": [training, trained], "evaluation": [evaluation, evaluated]}
                )
    return rows


def said_of_failures(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    if not failed:
        return []
    (a, b), (c, d) = ([sum(row[phase][i] for row in failed) for i in (0, 1)] for phase in ("training", "evaluation"))
    names = ", ".join(dict.fromkeys(row["agent"] for row in failed))
    return [
        f"A reward failed (a judge that did not answer, say) in {a:,} of {b:,} training episodes and {c:,} of {d:,} "
        f"evaluation episodes of {names}: the term that failed was left out there, or stood at its default, so what "
        "these agents learned from, and their returns, are not the whole reward's."
    ]
