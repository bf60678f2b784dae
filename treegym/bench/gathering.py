"""The finished runs of a suite, by environment and agent.

Letters: N runs (seeds) of an agent in an environment, T task kinds, P prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treegym.bench.suite import Suite
from treegym.errors import DataError

__all__ = ["AgentRuns", "gather"]


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
        """Whether nothing was learned and all runs are copies of one: they are not replicates."""
        learned = any(run["training"] is not None for run in self.summaries)
        return len(self.summaries) > 1 and not learned and bool((self.prompts == self.prompts[:1]).all())


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
