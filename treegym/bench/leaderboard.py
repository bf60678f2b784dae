"""From finished runs to a leaderboard: every number in the report and in leaderboard.json is made here.

Letters: N runs (seeds) of an agent in an environment, T task kinds, P prompts, C checkpoints.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import treegym
from treegym.bench.rating import rate
from treegym.bench.results import ResultFolder
from treegym.bench.significance import improvement, paired_difference, performance_profile
from treegym.bench.statistics import AGGREGATES, Interval, bootstrap, interquartile_mean
from treegym.bench.suite import BUDGET_UNITS, FORMAT, Suite
from treegym.errors import DataError

__all__ = ["AgentRuns", "build_leaderboard", "gather", "leaderboard_of"]

COLUMNS = ("correct", "return", "true", "proxy", "regret", "length")
UNITS = (*BUDGET_UNITS, "verdicts")
COSTS = (*UNITS, "episodes", "simulations", "judge_calls", "discarded_groups", "updates")
THRESHOLDS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class AgentRuns:
    """The runs of one agent in one environment, in the order of their seeds."""

    summaries: Sequence[Mapping[str, Any]]
    kinds: tuple[str, ...]
    scores: np.ndarray  # [N, 1] float64, the run's score, normalised, 0 to 1 where the scale fits
    by_kind: np.ndarray  # [N, T] float64, the same for each kind of task
    prompts: np.ndarray  # [N, P] float64, normalised score of each prompt

    @property
    def deterministic(self) -> bool:
        """Whether nothing was learned and all runs are copies of one: they are no replicates."""
        learned = any(run["training"] is not None for run in self.summaries)
        return len(self.summaries) > 1 and not learned and bool((self.prompts == self.prompts[:1]).all())


def leaderboard_of(path: str | os.PathLike[str], *, seed: int = 0) -> dict[str, Any]:
    """Returns the leaderboard of a result folder."""
    folder = ResultFolder(path)
    return build_leaderboard(folder.suite(), folder.summaries(), seed=seed)


def gather(suite: Suite, summaries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, AgentRuns]]:
    """Returns runs by environment and agent; DataError when two runs of an environment saw different prompts."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for summary in summaries:
        groups[summary["env"], summary["agent"]].append(summary)
    found: dict[str, dict[str, AgentRuns]] = {}
    for env in suite.envs:
        prompts: list[int] | None = None
        for agent in suite.agents:
            runs = sorted(groups.get((env.name, agent.name), []), key=lambda run: run["seed"])
            if not runs:
                continue
            low, high = env.scale
            kinds = tuple(sorted(runs[0]["final"]["kinds"]))
            for run in runs:
                prompts = run["final"]["prompts"] if prompts is None else prompts
                if run["final"]["prompts"] != prompts or tuple(sorted(run["final"]["kinds"])) != kinds:
                    raise DataError(
                        f"run {run['env']} / {run['agent']} / seed {run['seed']} was evaluated on other prompts than "
                        "the rest; results on different prompts cannot share a leaderboard"
                    )
            columns = (
                [[run["final"]["score"]] for run in runs],
                [[run["final"]["kinds"][kind]["score"] for kind in kinds] for run in runs],
                [run["final"]["scores"] for run in runs],
            )
            scaled = [(np.array(column, np.float64) - low) / (high - low) for column in columns]
            found.setdefault(env.name, {})[agent.name] = AgentRuns(runs, kinds, *scaled)
        worlds = {run.get("world") for entry in found.get(env.name, {}).values() for run in entry.summaries}
        if len(worlds) > 1:
            raise DataError(
                f"the runs in {env.name} walked {len(worlds)} different trees (was the file changed in between?); "
                "remove the older runs, or give another folder with --out"
            )
    return found


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
    failed = _failed_rewards(runs)
    return {
        "format": FORMAT,
        "version": treegym.__version__,
        "suite": suite.name,
        "suite_fingerprint": suite.fingerprint,
        "description": suite.description,
        "seeds": list(suite.seeds),
        "budget": {env.name: dict(env.budget or suite.budget) for env in suite.envs},
        "metric": {env.name: env.metric for env in suite.envs},
        "planner_sees": {env.name: _planners(runs.get(env.name, {})) for env in suite.envs},
        "runs": len(everyone),
        "expected_runs": expected,
        "prompts": {
            env: len(next(iter(agents.values())).summaries[0]["final"]["prompts"]) for env, agents in runs.items()
        },
        "references": {
            env: next(iter(agents.values())).summaries[0].get("reference", {}) for env, agents in runs.items()
        },
        "provenance": _provenance(everyone),
        "warnings": [*_warnings(suite, runs, everyone, expected), *_said_of_failures(failed)],
        "agents": rows,
        "remarks": _remarks(rows, suite),
        "samples": {},
        "improvement": _improvement(order, suite, runs, seed),
        "differences": _differences(order, suite, runs, seed),
        **({"failed_rewards": failed} if failed else {}),
        "thresholds": [round(float(x), 2) for x in THRESHOLDS],
    }


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
    low, high = next(e.scale for e in suite.envs if e.name == env)
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
            {"seed": run["seed"], "score": _finite(score), **{unit: run["cost"].get(unit) for unit in UNITS}}
            for run, (score,) in zip(entry.summaries, entry.scores.tolist(), strict=True)
        ],
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
                **{unit: _mean(point.get(unit) for point in here) for unit in UNITS},
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


def _planners(agents: Mapping[str, AgentRuns]) -> str:
    """Returns what planning agents are told of held-out prompts: no verdict, unless their settings say otherwise."""
    told = [name for name, entry in agents.items() if _sees(entry.summaries[0]) == "verifier"]
    return f"the verifier ({', '.join(told)})" if told else "no verdict"


def _sees(summary: Mapping[str, Any]) -> str:
    settings = summary["hyperparameters"]
    return str(settings.get("planner_sees", settings.get("sees", "")))


def _warnings(
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


def _remarks(rows: Sequence[Mapping[str, Any]], suite: Suite) -> list[str]:
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


def _failed_rewards(runs: Mapping[str, Mapping[str, AgentRuns]]) -> list[dict[str, Any]]:
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


def _said_of_failures(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    if not failed:
        return []
    (a, b), (c, d) = ([sum(row[phase][i] for row in failed) for i in (0, 1)] for phase in ("training", "evaluation"))
    names = ", ".join(dict.fromkeys(row["agent"] for row in failed))
    return [
        f"A reward failed (a judge that did not answer, say) in {a:,} of {b:,} training episodes and {c:,} of {d:,} "
        f"evaluation episodes of {names}: the term that failed was left out there, or stood at its default, so what "
        "these agents learned from, and their returns, are not the whole reward's."
    ]


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
