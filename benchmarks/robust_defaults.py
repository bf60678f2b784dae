"""Where the learners' defaults come from: candidates on generated worlds, then the choice on worlds of another kind.

The development worlds differ in depth, branching, width, teachers and difficulty; the candidates of an algorithm are
compared by their mean over all of them. The choice is confirmed on worlds that no candidate was tried on, with its
learning rate a third and three times as high. The bundled tree plays no part: it is what agents are judged by.

python benchmarks/robust_defaults.py            candidates, choice, confirmation (about half an hour of one core)
python benchmarks/robust_defaults.py --quick    two worlds, few steps: shows that it runs
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from typing import Any, NamedTuple

import common
import numpy as np

STEPS = 40_000
ALGORITHMS = ("ppo", "dapo", "vapo", "grpo", "rloo")

# depth, branching, width, teachers, difficulty
DEVELOPMENT = [
    (4, 3, 6, 4, 0.2), (4, 8, 8, 6, 0.5), (6, 4, 6, 3, 0.4), (6, 2, 4, 5, 0.3), (8, 4, 6, 4, 0.3), (8, 6, 4, 8, 0.2),
    (10, 3, 3, 4, 0.5), (12, 3, 3, 4, 0.3), (12, 2, 8, 2, 0.2), (16, 2, 2, 3, 0.4), (20, 3, 2, 4, 0.2),
    (24, 2, 2, 3, 0.4),
]  # fmt: skip
HELD_OUT = [(5, 5, 6, 5, 0.4), (9, 2, 5, 3, 0.3), (14, 3, 2, 6, 0.3), (22, 2, 2, 4, 0.3)]

LINEAR = {"learning_rate": "linear:0.003:0.0003", "n_epochs": 8, "ent_coef": 0.01}
CANDIDATES: dict[str, dict[str, Any]] = {
    "3e-4, 4 passes, no entropy": {"learning_rate": 3e-4, "n_epochs": 4, "ent_coef": 0.0, "exploring_starts": 0.0},
    "3e-3, 8 passes": {"learning_rate": 3e-3, "n_epochs": 8, "ent_coef": 0.01, "exploring_starts": 0.0},
    "3e-3 falling, 8 passes": {**LINEAR, "exploring_starts": 0.0},
    "and a quarter of exploring starts": {**LINEAR, "exploring_starts": 0.25},
    "and half exploring starts": {**LINEAR, "exploring_starts": 0.5},
}


class Run(NamedTuple):
    """One training run, and the share of held-out prompts that it came to answer right."""

    algorithm: str
    world: str
    seed: int
    steps: int
    switches: dict[str, Any]


def tree_of(shape: tuple[float, ...], seed: int) -> str:
    depth, branching, width, teachers, difficulty = shape
    return (
        f"synthetic:roots=400,depth={depth},branching={branching},width={width},teachers={teachers},"
        f"difficulty={difficulty},seed={seed}"
    )


def score(run: Run) -> float:
    import torch

    from treegym.agents.play.evaluation import play_roots, vector_world
    from treegym.agents.registry import agent_class

    torch.set_num_threads(1)
    world = vector_world("TokenTree-v0", 64, split="train", tree=run.world)
    agent = agent_class(run.algorithm)("ChildPolicy", world, seed=run.seed, **run.switches)
    agent.learn(run.steps, log_interval=0)
    test = vector_world("TokenTree-v0", 120, split="test", tree=run.world)
    return float(np.nanmean(play_roots(agent, test).success))


def scores(runs: Iterable[Run]) -> dict[tuple[str, str], list[float]]:
    """Returns the scores of each algorithm and set of switches, printing them as they come."""
    found: dict[tuple[str, str], list[float]] = {}
    runs = list(runs)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for run, value in zip(runs, pool.imap(score, runs), strict=True):
            found.setdefault((run.algorithm, str(run.switches)), []).append(value)
            print(f"{run.algorithm}  {run.world}  {run.switches}  {value:.3f}", flush=True)
    return found


def scaled(switches: dict[str, Any], factor: float) -> dict[str, Any]:
    """Returns the switches with another learning rate."""
    _, first, last = switches["learning_rate"].split(":")
    return {**switches, "learning_rate": f"linear:{float(first) * factor:g}:{float(last) * factor:g}"}


def main() -> None:
    args = common.parse(__doc__ or "")
    steps, seeds = (2_000, (0,)) if args.quick else (STEPS, (0, 1, 2, 3, 4))
    development = [tree_of(shape, 100 + number) for number, shape in enumerate(DEVELOPMENT)][
        : 2 if args.quick else None
    ]
    held_out = [tree_of(shape, 200 + number) for number, shape in enumerate(HELD_OUT)][: 1 if args.quick else None]
    tried = scores(
        Run(algorithm, world, 0, steps, switches)
        for world in development for algorithm in ALGORITHMS for switches in CANDIDATES.values()
    )  # fmt: skip
    print(common.table([
        {"algorithm": a, **{name: float(np.mean(tried[a, str(s)])) for name, s in CANDIDATES.items()}}
        for a in ALGORITHMS
    ]))  # fmt: skip
    chosen = CANDIDATES["and half exploring starts"]
    factors = {"rate / 3": 1 / 3, "rate": 1.0, "rate x 3": 3.0}
    confirmed = scores(
        Run(algorithm, world, seed, steps, scaled(chosen, factor))
        for algorithm in ALGORITHMS for factor in factors.values()
        for world in held_out for seed in (seeds if factor == 1.0 else seeds[:2])
    )  # fmt: skip
    cells = [
        {"algorithm": a, **{name: float(np.mean(confirmed[a, str(scaled(chosen, f))])) for name, f in factors.items()}}
        for a in ALGORITHMS
    ]  # fmt: skip
    print(common.table(cells))
    common.emit(
        "robust_defaults",
        {f"{a}_{i}": float(np.mean(tried[a, str(s)])) for a in ALGORITHMS for i, s in enumerate(CANDIDATES.values())},
        cells,
    )


if __name__ == "__main__":
    main()
