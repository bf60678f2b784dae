"""How the switches of `learning.py` were chosen: candidates on the validation roots, with seeds it does not use.

python benchmarks/learning_select.py            all candidates, three seeds each
python benchmarks/learning_select.py --quick    one seed, few steps: shows that it runs
"""

from __future__ import annotations

import statistics
from typing import Any

import common
from learning import STEPS, SWITCHES, run

SEEDS = (10, 11, 12)


def linear(first: float, last: float) -> str:
    return f"linear:{first}:{last}"


START: dict[str, dict[str, Any]] = {
    "ppo": {**SWITCHES["ppo"], "learning_rate": 1e-3, "ent_coef": linear(0.05, 0.005)},
    "dapo": {**SWITCHES["dapo"], "n_epochs": 4},
    "vapo": SWITCHES["vapo"],
    "alphazero": SWITCHES["alphazero"],
}
# on top of the agent's line in START
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "ppo": [
        {},
        {"learning_rate": linear(0.002, 0.0002)},
        {"learning_rate": linear(0.001, 0.0001)},
        {"learning_rate": linear(0.003, 0.0003)},
        {"learning_rate": linear(0.001, 0.0001), "n_epochs": 8},
        {"learning_rate": linear(0.002, 0.0002), "ent_coef": linear(0.1, 0.005)},
        {"learning_rate": linear(0.002, 0.0002), "ent_coef": linear(0.02, 0.002)},
        {"learning_rate": linear(0.002, 0.0002), "gamma": 1.0},
        {"learning_rate": linear(0.0015, 0.0001), "n_episodes": 128, "batch_size": 256},
    ],
    "dapo": [
        {},
        {"learning_rate": linear(0.002, 0.0002)},
        {"learning_rate": linear(0.001, 0.0001)},
        {"learning_rate": linear(0.002, 0.0002), "n_episodes": 256},
        {"group_size": 8, "n_episodes": 256},
        {"ent_coef": linear(0.1, 0.01)},
        {"ent_coef": linear(0.02, 0.002)},
        {"n_epochs": 8},
        {"learning_rate": linear(0.003, 0.0002), "n_episodes": 256, "batch_size": 512},
    ],
    "vapo": [
        {},
        {"learning_rate": linear(0.002, 0.0002)},
        {"learning_rate": linear(0.001, 0.0001)},
        {"learning_rate": linear(0.003, 0.0003)},
        {"learning_rate": linear(0.0015, 0.0001), "n_episodes": 128, "batch_size": 256},
        {"learning_rate": linear(0.002, 0.0002), "ent_coef": linear(0.1, 0.01)},
        {"learning_rate": linear(0.002, 0.0002), "ent_coef": linear(0.02, 0.002)},
        {"learning_rate": linear(0.001, 0.0001), "n_epochs": 8},
        {"learning_rate": linear(0.002, 0.0002), "group_size": 8},
    ],
    "alphazero": [
        {},
        {"replay_ratio": 8.0},
        {"learning_rate": linear(0.003, 0.0003)},
        {"exploring_starts": 0.25},
        {"likelihood_weight": 0.0},
    ],
}


def main() -> None:
    args = common.parse(__doc__ or "")
    seeds, steps = (SEEDS[:1], 2_000) if args.quick else (SEEDS, STEPS)
    asked = [(name, change) for name, changes in CANDIDATES.items() for change in changes]
    jobs = [(name, seed, steps, {**START[name], **change}, "validation") for name, change in asked for seed in seeds]
    results = run(jobs)
    cells: list[dict[str, Any]] = []
    for number, (name, change) in enumerate(asked):
        mine = results[number * len(seeds) : (number + 1) * len(seeds)]
        cells.append(
            {"agent": name, "correct": statistics.mean(r.correct for r in mine), "least": min(r.correct for r in mine),
             "without_search": statistics.mean(r.without_search for r in mine), "change": str(change)}
        )  # fmt: skip
    print(common.table(cells))
    common.emit("learning_select", {}, cells)


if __name__ == "__main__":
    main()
