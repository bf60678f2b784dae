"""From finished runs to a leaderboard: every number in the report and in leaderboard.json is made here.

Letters: N runs (seeds) of an agent in an environment, T task kinds, P prompts, C checkpoints.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import treegym
from treegym.bench.gathering import AgentRuns, gather
from treegym.bench.rating import rate
from treegym.bench.remarks import failed_rewards, planner_sees, said_of_failures, told, turns, warnings
from treegym.bench.results import ResultFolder
from treegym.bench.significance import improvement, paired_difference, performance_profile
from treegym.bench.spending import price_of, spent
from treegym.bench.statistics import AGGREGATES, Interval, bootstrap, interquartile_mean
from treegym.bench.suite import BUDGET_UNITS, FORMAT, Suite
from treegym.errors import DataError

__all__ = ["build_leaderboard", "leaderboard_of"]

COLUMNS = ("correct", "return", "true", "proxy", "regret", "length")
COSTS = (*BUDGET_UNITS, "episodes", "simulations", "judge_calls", "discarded_groups", "updates")
THRESHOLDS = np.linspace(0.0, 1.0, 101)


def leaderboard_of(path: str | os.PathLike[str], *, seed: int = 0) -> dict[str, Any]:
    """Returns the leaderboard of a result folder."""
    folder = ResultFolder(path)
    return build_leaderboard(folder.suite(), folder.summaries(), seed=seed)


def build_leaderboard(suite: Suite, summaries: Iterable[Mapping[str, Any]], *, seed: int = 0) -> dict[str, Any]:
    """Returns everything the report shows, as plain JSON values. The same runs and seed give the same leaderboard."""
    runs = gather(suite, summaries)
    everyone = [run for agents in runs.values() for entry in agents.values() for run in entry.summaries]
    if not everyone:
        raise DataError("there is no finished run to make a leaderboard of")
    complete = [agent.name for agent in suite.agents if all(agent.name in runs.get(env.name, {}) for env in suite.envs)]
    rows = [_row(name, suite, runs, seed) for name in complete]
    rows.sort(key=lambda row: (-row["iqm"][0], -row["mean"][0], row["name"]))
    ratings = rate({env: {a: agents[a].prompts for a in complete} for env, agents in runs.items()}, seed=seed)
    for rank, row in enumerate(rows, 1):
        row["rank"] = rank
        row["rating"] = ratings.get(row["name"])
    order = [row["name"] for row in rows]
    expected = len(suite.envs) * len(suite.agents) * len(suite.seeds)
    failed = failed_rewards(runs)
    return {
        "format": FORMAT,
        "version": treegym.__version__,
        "suite": suite.name,
        "suite_fingerprint": suite.fingerprint,
        "description": suite.description,
        "seeds": list(suite.seeds),
        "budget": {env.name: dict(env.budget or suite.budget) for env in suite.envs},
        "metric": {env.name: env.metric for env in suite.envs},
        "planner_sees": {env.name: planner_sees(runs.get(env.name, {})) for env in suite.envs},
        "runs": len(everyone),
        "expected_runs": expected,
        "prompts": {
            env: len(next(iter(agents.values())).summaries[0]["final"]["prompts"]) for env, agents in runs.items()
        },
        "references": {
            env: next(iter(agents.values())).summaries[0].get("reference", {}) for env, agents in runs.items()
        },
        "provenance": _provenance(everyone),
        "warnings": [*warnings(suite, runs, everyone, expected), *said_of_failures(failed)],
        "agents": rows,
        "remarks": [*told(rows, runs), *turns(rows, suite)],
        "samples": {env: _samples(agents, order) for env, agents in runs.items() if _samples(agents, order)},
        "improvement": _improvement(order, suite, runs, seed),
        "differences": _differences(order, suite, runs, seed),
        **({"failed_rewards": failed} if failed else {}),
        "thresholds": [round(float(x), 2) for x in THRESHOLDS],
    }


def _samples(agents: Mapping[str, AgentRuns], order: Sequence[str]) -> dict[str, list[list[str]]]:
    """Returns by prompt what the first run of each agent answered: agent, answer, whether it is correct."""
    said: dict[str, list[list[str]]] = {}
    for name in order:
        for sample in agents[name].summaries[0].get("samples", ()):
            line = [name, sample["answer"], "yes" if sample["correct"] else "no"]
            said.setdefault(sample["prompt"], []).append(line)
    return said


def _row(name: str, suite: Suite, runs: Mapping[str, Mapping[str, AgentRuns]], seed: int) -> dict[str, Any]:
    entries = {env.name: runs[env.name][name] for env in suite.envs}
    strata = [entry.scores for entry in entries.values()]
    fixed = all(entry.deterministic for entry in entries.values())
    aggregates = {key: _ends(bootstrap(strata, f, seed=seed), fixed=fixed) for key, f in AGGREGATES.items()}
    against_zero = [np.zeros((1, entry.prompts.shape[1])) for entry in entries.values()]
    broad = paired_difference([entry.prompts for entry in entries.values()], against_zero, seed=seed)
    point, low, high = performance_profile([entry.by_kind for entry in entries.values()], THRESHOLDS, seed=seed)
    everyone = [run for entry in entries.values() for run in entry.summaries]
    contestant = next(agent for agent in suite.agents if agent.name == name)
    evaluations = [{**run["cost"].get("evaluation", {}), "episodes": run["episodes"]["count"]} for run in everyone]
    return {
        "name": name,
        "agent": contestant.agent,
        "settings": dict(contestant.kwargs),
        **aggregates,
        "mean_over_prompts": _ends(broad),
        "runs": len(everyone),
        "deterministic": fixed,
        **{column: _mean(run["final"].get(column) for run in everyone) for column in COLUMNS},
        "cost": {cost: _mean(run["cost"].get(cost) for run in everyone) for cost in COSTS},
        "evaluation": {
            **{key: _mean(part.get(key) for part in evaluations) for key in ("forward_passes", "cpu_seconds")},
            "per_episode": _mean(
                part["forward_passes"] / part["episodes"]
                for part in evaluations
                if part.get("forward_passes") is not None
            ),
        },
        "profile": {
            "point": _short(point),
            "low": _short(low, fixed=fixed),
            "high": _short(high, fixed=fixed),
        },
        "envs": {env: _env_row(entry, suite, env, seed) for env, entry in entries.items()},
    }


def _env_row(entry: AgentRuns, suite: Suite, env: str, seed: int) -> dict[str, Any]:
    about = next(e for e in suite.envs if e.name == env)
    (low, high), price = about.scale, price_of(about)
    return {
        "iqm": _ends(bootstrap([entry.scores], interquartile_mean, seed=seed), fixed=entry.deterministic),
        **{column: _mean(run["final"].get(column) for run in entry.summaries) for column in COLUMNS},
        "kinds": {
            kind: {
                "score": _mean(entry.by_kind[:, t]),
                "regret": _mean(run["final"]["kinds"][kind].get("regret") for run in entry.summaries),
                "episodes": entry.summaries[0]["final"]["kinds"][kind]["episodes"],
            }
            for t, kind in enumerate(entry.kinds)
        },
        "curve": _curve(entry.summaries, low, high, seed),
        "hyperparameters": entry.summaries[0]["hyperparameters"],
        "runs": [
            {"seed": run["seed"], "score": _finite(score), **{unit: run["cost"].get(unit) for unit in BUDGET_UNITS}}
            for run, (score,) in zip(entry.summaries, entry.scores.tolist(), strict=True)
        ],
        **({} if price is None else {"spent": spent(entry, price, seed=seed)}),
    }


def _curve(summaries: Sequence[Mapping[str, Any]], low: float, high: float, seed: int) -> list[dict[str, Any]]:
    """Returns a point for each checkpoint that all runs reached: mean cost so far, interquartile mean of the score."""
    count = min(len(run["curve"]) for run in summaries)
    points = []
    for c in range(count):
        here = [run["curve"][c] for run in summaries]
        scores = (np.array([[point["score"]] for point in here], np.float64) - low) / (high - low)  # [N, 1] float64
        points.append(
            {
                **{unit: _mean(point.get(unit) for point in here) for unit in BUDGET_UNITS},
                "score": _ends(bootstrap([scores], interquartile_mean, seed=seed, resamples=500)),
                **{column: _mean(point.get(column) for point in here) for column in ("true", "proxy", "regret")},
            }
        )
    return points


def _improvement(
    order: Sequence[str], suite: Suite, runs: Mapping[str, Mapping[str, AgentRuns]], seed: int
) -> list[list[list[float | None] | None]]:
    """Returns P(row's agent beats column's agent) with its interval, for every pair; None on the diagonal."""
    strata = {name: [runs[env.name][name].scores for env in suite.envs] for name in order}
    matrix: list[list[list[float | None] | None]] = [[None] * len(order) for _ in order]
    for i, first in enumerate(order):
        for j in range(i + 1, len(order)):
            p = improvement(strata[first], strata[order[j]], seed=seed, resamples=1_000)
            fixed = all(runs[env.name][name].deterministic for env in suite.envs for name in (first, order[j]))
            matrix[i][j] = _ends(p, fixed=fixed)
            matrix[j][i] = _ends(Interval(1 - p.point, 1 - p.high, 1 - p.low), fixed=fixed)
    return matrix


def _differences(
    order: Sequence[str], suite: Suite, runs: Mapping[str, Mapping[str, AgentRuns]], seed: int
) -> list[dict[str, Any]]:
    """Returns each agent's lead over the next one, paired by prompt."""
    leads = []
    for first, second in itertools.pairwise(order):
        sides = [[runs[env.name][name].prompts for env in suite.envs] for name in (first, second)]
        leads.append({"first": first, "second": second, "lead": _ends(paired_difference(*sides, seed=seed))})
    return leads


def _provenance(everyone: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the provenance most runs share."""
    counted = Counter(repr(run.get("provenance")) for run in everyone)
    commonest = counted.most_common(1)[0][0]
    return dict(next(run["provenance"] for run in everyone if repr(run.get("provenance")) == commonest) or {})


def _ends(interval: Interval, *, fixed: bool = False) -> list[float | None]:
    """Returns a point and the ends of its interval, which copies of one run (`fixed`) do not have."""
    ends = [None, None] if fixed else [_finite(interval.low), _finite(interval.high)]
    return [_finite(interval.point), *ends]


def _mean(values: Iterable[Any]) -> float | None:
    present = [float(value) for value in values if value is not None]
    return _finite(math.fsum(present) / len(present)) if present else None


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _short(values: np.ndarray, *, fixed: bool = False) -> list[float | None]:
    return [None if fixed or math.isnan(value) else round(float(value), 4) for value in values]
