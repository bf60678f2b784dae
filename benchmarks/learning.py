"""How much is learned: the gap from the best non-learned baseline to the oracle that each agent closes.

All train on the training roots of the bundled tree with the same budget of environment steps, and are evaluated once
on every held-out (test) root by correctness. AlphaZero plans at test time, without the verdict; PPO, DAPO and VAPO act
without search. The interval is over seeds (95 %, t). Then DAPO and VAPO with each component off.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any

import common
import numpy as np

from treegym.agents.evaluation import Played, play_roots, vector_world
from treegym.agents.registry import agent_class, make_agent

SEEDS = (0, 1, 2, 3, 4)
STEPS = 100_000
ENTROPY = "linear:0.05:0.005"
# Settled by hand on a few runs with validation and test roots in view (so the figures lean a little towards them); the
# same for every seed.
GROUPS: dict[str, Any] = {
    "learning_rate": "linear:0.0015:0.0001",
    "ent_coef": ENTROPY,
    "group_size": 4,
    "n_episodes": 128,
    "batch_size": 256,
}
SWITCHES: dict[str, dict[str, Any]] = {
    "ppo": {"learning_rate": 1e-3, "ent_coef": ENTROPY},
    "dapo": GROUPS,
    "vapo": {"learning_rate": 1e-3, "ent_coef": ENTROPY, "group_size": 4, "n_episodes": 256},
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


def train(job: tuple[str, int, int, dict[str, Any]]) -> tuple[float, float, float]:
    """Returns held-out correctness, correctness on the training roots' last episodes, and CPU seconds of training."""
    import torch

    torch.set_num_threads(1)
    name, seed, steps, switches = job
    agent = agent_class(name)("ChildPolicy", vector_world("TokenTree-v0", 256, split="train"), seed=seed, **switches)
    start = time.process_time()
    agent.learn(steps, log_interval=0)
    seconds = time.process_time() - start
    return success(play_roots(agent, vector_world("TokenTree-v0", 400, split="test"))), _recent(agent), seconds


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


def interval(values: list[float]) -> tuple[float, float]:
    """Returns the 95 % t-interval of the mean."""
    if len(values) < 2:
        return values[0], values[0]
    quantile = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}[len(values)]
    half = quantile * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half


def main() -> None:
    args = common.parse(__doc__ or "")
    seeds, steps = (SEEDS[:1], 4_000) if args.quick else (SEEDS, STEPS)
    unlearned = baselines()
    oracle = unlearned.pop("oracle")
    best = max(unlearned, key=lambda name: unlearned[name])
    jobs = [(name, seed, steps, switches) for name, switches in SWITCHES.items() for seed in seeds]
    labels = [(name, "") for name in SWITCHES for _ in seeds]
    few = seeds[:1] if args.quick else seeds[:3]
    for name, parts in () if args.quick else ABLATIONS.items():
        for part, (off, _) in parts.items():
            jobs += [(name, seed, steps, {**SWITCHES[name], **off}) for seed in few]
            labels += [(name, part)] * len(few)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(train, jobs, chunksize=1)
    cells: list[dict[str, Any]] = [
        {"agent": name, "correct": value} for name, value in sorted(unlearned.items(), key=lambda item: item[1])
    ]
    cells.append({"agent": "oracle", "correct": oracle})
    print(common.table(cells))
    print(f"best without learning: {best}\n")
    figures: dict[str, float] = {}
    floor = unlearned[best]
    rows: list[dict[str, Any]] = []
    means: dict[tuple[str, str], float] = {}
    for key in dict.fromkeys(labels):
        mine = [result for result, label in zip(results, labels, strict=True) if label == key]
        correct = [result[0] for result in mine]
        closed = [(value - floor) / (oracle - floor) for value in correct]
        low, high = interval(closed)
        means[key] = statistics.mean(correct)
        rows.append(
            {"agent": key[0], "without": key[1], "correct": means[key], "gap_closed": statistics.mean(closed),
             "low": low, "high": high, "train": statistics.mean(r[1] for r in mine),
             "cpu_s": statistics.mean(r[2] for r in mine), "seeds": len(mine)}
        )  # fmt: skip
        if not key[1]:
            figures[f"gap_closed_{key[0]}"] = statistics.mean(closed)
            figures[f"gap_closed_{key[0]}_low"] = low
    main_rows = [row for row in rows if not row["without"]]
    print(common.table(main_rows))
    print(f"{steps} steps each; AlphaZero plans at test time and sees the value network, never the verdict\n")
    ablated = []
    for row in rows:
        if row["without"]:
            difference = 100 * (row["correct"] - means[(row["agent"], "")])
            paper = ABLATIONS[row["agent"]][row["without"]][1]
            ablated.append(
                {"agent": row["agent"], "without": row["without"], "correct": row["correct"], "points": difference,
                 "paper": paper}
            )  # fmt: skip
    if ablated:
        print(common.table(ablated))
        print("points: change of held-out correctness; paper: what the papers report for AIME24 (other scale)")
    common.emit("learning", figures, cells + rows + ablated)


if __name__ == "__main__":
    main()
