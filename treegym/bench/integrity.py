"""Is a result folder whole: nothing edited, removed or copied, and the same again when it is run again?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from treegym.agents.registry import AGENTS
from treegym.bench import chain
from treegym.bench.results import ResultFolder, strict_json
from treegym.bench.runner import run_again
from treegym.bench.suite import BUDGET_UNITS, Job, Suite

__all__ = ["Verification", "check_claims", "check_whole", "repeat", "same", "unlearned"]

_SHOWN = 20  # problems listed; more say no more


@dataclass
class Verification:
    """What a check found."""

    runs: int = 0
    episodes: int = 0
    replayed: int = 0  # episodes whose end was looked up in the tree
    rerun: int = 0  # runs that were repeated here
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what could not be checked
    leaderboard: dict[str, Any] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {
            "sound": self.sound,
            "runs": self.runs,
            "episodes": self.episodes,
            "replayed": self.replayed,
            "rerun": self.rerun,
            "notes": self.notes,
            "problems": self.problems[:_SHOWN],
        }


def check_claims(name: str, summary: Mapping[str, Any], job: Job) -> Iterator[str]:
    """Yields where a summary contradicts the job that it says it is, or itself."""
    if not same(json.loads(json.dumps(job.as_json())), summary.get("job")) or summary["seed"] != job.seed:
        yield f"{name}: its job (agent, environment, seed, budget) is not the suite's"
    kwargs = {**job.agent.kwargs, **job.agent.per_env.get(job.env.name, {})}
    plain = {key: value for key, value in kwargs.items() if isinstance(value, str | int | float)}
    edited = [key for key in plain.keys() & summary["hyperparameters"].keys()
              if not same(plain[key], summary["hyperparameters"][key])]  # fmt: skip
    if edited:
        yield f"{name}: {', '.join(sorted(edited))} of its settings are not what the suite says"
    for unit in BUDGET_UNITS:
        along = [point[unit] for point in summary["curve"] if point["checkpoint"] and point.get(unit) is not None]
        spent = summary["cost"].get(unit) or 0
        slack = 0.1 + 0.05 * spent if unit == "cpu_seconds" else 0  # the clock runs on between the two readings
        if along != sorted(along) or (along and along[-1] > spent + slack):
            yield f"{name}: its {unit.replace('_', ' ')} do not add up: the learning curve says otherwise"


def check_whole(
    folder: ResultFolder, suite: Suite, summaries: Sequence[Mapping[str, Any]], found: Verification
) -> Iterator[str]:
    """Yields which runs are missing, which are copies of others, and what the chain of runs says."""
    present = {(run["env"], run["agent"], run["seed"]) for run in summaries}
    for env in suite.envs:
        for agent in suite.agents:
            absent = [str(seed) for seed in suite.seeds if (env.name, agent.name, seed) not in present]
            if absent:
                yield f"{env.name} / {agent.name}: the runs of seeds {', '.join(absent)} are missing"
    seen: dict[tuple[str, str, str], int] = {}
    for run in summaries:
        if run["training"] is None or not run["training"]["count"]:
            continue
        first = seen.setdefault((run["env"], run["agent"], run["training"]["sha256"]), run["seed"])
        if first != run["seed"]:
            yield (
                f"{run['env']} / {run['agent']}: seed {run['seed']} was trained on the very episodes of seed {first}: "
                "one is a copy of the other"
            )
    if folder.chained:
        yield from chain.faults(folder.path)
    else:
        found.notes.append("written before runs were chained: costs, settings and provenance are believed")


def unlearned(suite: Suite, summaries: Sequence[Mapping[str, Any]]) -> list[Job]:
    """Returns one run of each bundled agent that does not learn, in each environment: repeating them costs little."""
    still = {(run["env"], run["agent"], run["seed"]) for run in summaries if run["training"] is None}
    chosen: dict[tuple[str, str], Job] = {}
    for job in suite.jobs():
        if (job.env.name, job.agent.name, job.seed) in still and job.agent.agent in AGENTS.table:
            chosen.setdefault((job.env.name, job.agent.name), job)
    return list(chosen.values())


def repeat(
    folder: ResultFolder, jobs: Sequence[Job], found: Verification, *, source: str | None = None
) -> Iterator[str]:
    """Runs jobs again and yields where their episodes or costs are not those that were handed in.

    `source` is the file that they were read from and that nothing is imported for; None: names are yours.
    """
    timed = [job for job in jobs if "cpu_seconds" in job.budget]
    if timed:
        found.notes.append(f"{len(timed)} runs with a budget in CPU seconds were not repeated: clocks differ")
    jobs = [job for job in jobs if job not in timed]
    if not jobs:
        return
    with tempfile.TemporaryDirectory() as place:
        again = ResultFolder(place)
        for job, answer in run_again(jobs, place, source=source):
            found.rerun += 1
            if "error" in answer:
                yield f"{job.id} could not be run again: {answer['error']}"
                continue
            ours, theirs = (strict_json(results.summary_path(job)) for results in (again, folder))
            for what, claim in (("episodes", "sha256"), ("training", "sha256")):
                if (ours[what] or {}).get(claim) != (theirs[what] or {}).get(claim):
                    yield f"{job.id}: run again here, its {what} are others than those handed in"
            for unit in ("env_steps", "forward_passes", "simulations"):
                if not same(ours["cost"].get(unit), theirs["cost"].get(unit)):
                    yield f"{job.id}: run again here, it took other {unit.replace('_', ' ')} than it claims"
            if (theirs["cost"].get("cpu_seconds") or 0) < 0.2 * (ours["cost"].get("cpu_seconds") or 0) - 1:
                yield f"{job.id}: run again here, it took more than five times the CPU seconds it claims"


def same(ours: Any, theirs: Any) -> bool:
    """Returns whether two JSON values agree, numbers up to rounding."""
    if isinstance(ours, dict):
        return (
            isinstance(theirs, dict)
            and ours.keys() == theirs.keys()
            and all(same(v, theirs[k]) for k, v in ours.items())
        )
    if isinstance(ours, (list, tuple)):
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, float) or isinstance(theirs, float):
        number = isinstance(ours, (int, float)) and isinstance(theirs, (int, float))
        return number and abs(ours - theirs) <= 1e-6 * max(1.0, abs(ours))
    return bool(ours == theirs)
