"""How much is learned: the gap from the best non-learned baseline to the oracle that each agent closes.

All train on the training roots of the bundled tree with the same budget of environment steps, and are evaluated once
on every held-out (test) root by correctness. AlphaZero plans at test time, without the verdict; PPO, DAPO and VAPO act
without search. The interval is over seeds (95 %, t). Then DAPO and VAPO with each component off, seed against seed.
Switches were chosen on the validation roots, with other seeds (`learning_select.py`); test roots play no part in that.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any, NamedTuple

import common
import numpy as np

from treegym.agents.play.evaluation import Played, play_roots, vector_world
from treegym.agents.registry import agent_class, make_agent

SEEDS = (0, 1, 2, 3, 4)
STEPS = 100_000
ENTROPY = "linear:0.05:0.005"
FROM_ROOTS = {"exploring_starts": 0.0}
SWITCHES: dict[str, dict[str, Any]] = {
    "ppo": {"learning_rate": "linear:0.002:0.0002", "ent_coef": "linear:0.1:0.005", "n_epochs": 4, **FROM_ROOTS},
    "dapo": {
        "learning_rate": "linear:0.0015:0.0001", "ent_coef": ENTROPY, "group_size": 4, "n_episodes": 128,
        "batch_size": 256, "n_epochs": 8, "dynamic_sampling": True, **FROM_ROOTS,
    },
    "vapo": {
        "learning_rate": 1e-3, "ent_coef": ENTROPY, "group_size": 4, "n_episodes": 256, "n_epochs": 4, **FROM_ROOTS,
    },
    "alphazero": {"learning_rate": "linear:0.002:0.0003", "search_options": {"normalise": False}},
}  # fmt: skip
# what switches a component off, and what the paper says that costs (AIME24, points)
ABLATIONS: dict[str, dict[str, tuple[dict[str, Any], str]]] = {
    "dapo": {
        "clip-higher": ({"clip_range_high": None}, "-2"),
        "token loss": ({"aggregation": "sample"}, "-1"),
        "dynamic sampling": ({"dynamic_sampling": False}, "-8"),
    },
    "vapo": {
        "value pretraining": ({"value_pretraining": False}, "-49"),
        "decoupled GAE": ({"decoupled": False}, "-27"),
        "length-adaptive GAE": ({"length_adaptive": False}, "-15"),
        "clip-higher": ({"clip_range_high": None}, "-14"),
        "token loss": ({"aggregation": "sample"}, "-7"),
        "NLL of correct": ({"nll_weight": 0.0}, "-6"),
        "group sampling": ({"group_sampling": False}, "-5"),
    },
}
BASELINES = ("greedy_prior", "step_vote", "sequence_vote", "rerank")


class Result(NamedTuple):
    """What one run came to."""

    correct: float  # on held-out roots
    without_search: float  # the same, by the policy alone
    recent: float  # correctness of the last episodes of training
    seconds: float  # CPU seconds of training


class PolicyAlone:
    """An agent's policy without its search."""

    def __init__(self, agent: Any) -> None:
        self._policy = agent.policy

    def predict(self, rows: Any, *, deterministic: bool) -> Any:
        return self._policy.best(rows), None


def train(job: tuple[str, int, int, dict[str, Any], str]) -> Result:
    """Trains on the training roots and plays every root of a split once."""
    import torch

    torch.set_num_threads(1)
    name, seed, steps, switches, split = job
    agent = agent_class(name)("ChildPolicy", vector_world("TokenTree-v0", 256, split="train"), seed=seed, **switches)
    start = time.process_time()
    agent.learn(steps, log_interval=0)
    seconds = time.process_time() - start
    world = vector_world("TokenTree-v0", 400, split=split)
    correct = success(play_roots(agent, world))
    alone = success(play_roots(PolicyAlone(agent), world)) if name == "alphazero" else correct
    return Result(correct, alone, _recent(agent), seconds)


def run(jobs: list[tuple[str, int, int, dict[str, Any], str]]) -> list[Result]:
    """Runs jobs on two processes."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(train, jobs, chunksize=1)


def success(played: Played) -> float:
    return float(np.nanmean(played.success))


def _recent(agent: Any) -> float:
    return float(np.mean(agent.ep_success_buffer)) if agent.ep_success_buffer else float("nan")


def baselines() -> dict[str, float]:
    """Returns held-out correctness of everything that needs no learning, and of the oracle."""
    world = vector_world("TokenTree-v0", 400, split="test")
    found = {name: success(play_roots(make_agent(name, world, seed=0), world)) for name in BASELINES}
    for teacher in [n for n in world.env.unwrapped.layout.child if n.startswith("teacher:")]:
        agent = make_agent("teacher", world, seed=0, teacher=teacher.removeprefix("teacher:"))
        found[teacher] = success(play_roots(agent, world))
    found["oracle"] = success(play_roots(make_agent("oracle", world, seed=0, goal="correct"), world))
    return found


def main() -> None:
    args = common.parse(__doc__ or "")
    seeds, steps = (SEEDS[:1], 4_000) if args.quick else (SEEDS, STEPS)
    unlearned = baselines()
    oracle = unlearned.pop("oracle")
    best = max(unlearned, key=lambda name: unlearned[name])
    jobs = [(name, seed, steps, switches, "test") for name, switches in SWITCHES.items() for seed in seeds]
    labels = [(name, "") for name in SWITCHES for _ in seeds]
    for name, parts in () if args.quick else ABLATIONS.items():
        for part, (off, _) in parts.items():
            jobs += [(name, seed, steps, {**SWITCHES[name], **off}, "test") for seed in seeds]
            labels += [(name, part)] * len(seeds)
    results = run(jobs)
    cells: list[dict[str, Any]] = [
        {"agent": name, "correct": value} for name, value in sorted(unlearned.items(), key=lambda item: item[1])
    ]
    cells.append({"agent": "oracle", "correct": oracle})
    print(common.table(cells))
    print(f"best without learning: {best}\n")
    figures: dict[str, float] = {}
    floor = unlearned[best]
    rows: list[dict[str, Any]] = []
    ablated: list[dict[str, Any]] = []
    whole: dict[str, list[float]] = {}
    for agent, part in dict.fromkeys(labels):
        mine = [result for result, label in zip(results, labels, strict=True) if label == (agent, part)]
        correct = [result.correct for result in mine]
        if part:  # the same seeds with it and without
            points = [100 * (off - on) for off, on in zip(correct, whole[agent], strict=True)]
            low, high = common.mean_interval(points)
            ablated.append(
                {"agent": agent, "without": part, "correct": statistics.mean(correct),
                 "points": statistics.mean(points), "low": low, "high": high, "paper": ABLATIONS[agent][part][1],
                 "seeds": len(mine)}
            )  # fmt: skip
            continue
        whole[agent] = correct
        closed = [(value - floor) / (oracle - floor) for value in correct]
        low, high = common.mean_interval(closed)
        rows.append(
            {"agent": agent, "correct": statistics.mean(correct),
             "without_search": statistics.mean(r.without_search for r in mine), "gap_closed": statistics.mean(closed),
             "low": low, "high": high, "train": statistics.mean(r.recent for r in mine),
             "cpu_s": statistics.mean(r.seconds for r in mine), "seeds": len(mine)}
        )  # fmt: skip
        figures[f"gap_closed_{agent}"] = statistics.mean(closed)
        figures[f"gap_closed_{agent}_low"] = low
    print(common.table(rows))
    print(f"{steps} steps each; AlphaZero plans at test time and sees the value network, never the verdict\n")
    if ablated:
        print(common.table(ablated))
        print("points: change of held-out correctness; paper: what the papers report for AIME24 (other scale)")
    common.emit("learning", figures, cells + rows + ablated)


if __name__ == "__main__":
    main()
