"""Search quality on held-out roots of the bundled tree: accuracy and regret of every method at equal budgets.

An answer is written token by token; before each token the method may take the given number of simulations from where
it stands. Two settings: planning without the verdict (it is told the judge's score at ends, as a deployment would
have) and with the verifier in the loop. The verdict alone scores the final answer, against the best the tree holds.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import emit, parse, table

from treegym.envs.token_tree.simulator import ClosedTree
from treegym.envs.token_tree.tree import TokenTree
from treegym.envs.token_tree.weights import initial_weights, similarity_scores
from treegym.search import names

BUNDLED = Path(__file__).parents[1] / "envs" / "token_tree" / "data" / "bundled.tree"
IN_KERNEL = ("puct", "gumbel", "uct", "ments", "rents", "similarity")
BUDGETS = (16, 64, 256, 1024, 4096)
PYTHON_LIMIT = 256  # methods written in Python are run up to here; they find everything in these trees by then


def answers(world: ClosedTree, verdict: np.ndarray, roots: np.ndarray, method: str, budget: int) -> np.ndarray:
    """Returns the verdict of the answer written from each root."""
    at, alive = roots.astype(np.int64).copy(), np.ones(len(roots), bool)
    options: dict[str, Any] = {"gumbel_scale": 0.0} if method in IN_KERNEL else {}
    if method == "best_of_n":
        options = {"temperature": 1.0}
    for move in range(200):
        if not alive.any():
            break
        here = np.flatnonzero(alive)
        seeds = {"root_ids": here} if method not in ("greedy",) else {}
        found = world.search(at[here], method=method, num_simulations=budget, seed=move, **options, **seeds)
        after = world.step(at[here], found.action)
        at[here] = after.states
        alive[here] = ~after.terminated
    return np.nan_to_num(verdict[at])


def main() -> None:
    """Runs the benchmark."""
    arguments = parse(__doc__ or "")
    tree = TokenTree.open(BUNDLED)
    size = tree.size
    ends = np.asarray(tree.child_count) == 0
    verdict = np.nan_to_num(np.asarray(tree.verdict, np.float32))
    judge = np.nan_to_num(np.asarray(tree.judge, np.float32))
    roots = np.asarray(tree.root_node)[tree.roots_in("test")][: 24 if arguments.quick else 200]
    best = verdict * ends
    parent = np.asarray(tree.parent)
    for node in range(size - 1, 0, -1):  # the best end below each node
        if parent[node] >= 0 and best[node] > best[parent[node]]:
            best[parent[node]] = best[node]
    weights = similarity_scores(tree, initial_weights(np.asarray(tree.first_child), np.asarray(tree.child_count)))
    rows: list[dict[str, Any]] = []
    for sees, reward in (("rewards", judge * ends), ("verifier", verdict * ends)):
        plain = ClosedTree(tree, reward=reward, terminal=ends)
        by_similarity = ClosedTree(tree, reward=reward, terminal=ends, policy=weights)
        for method in names():
            last = 0.0
            for budget in (16, 256) if arguments.quick else BUDGETS:
                if method not in IN_KERNEL and budget > PYTHON_LIMIT:
                    continue
                start = time.process_time()
                world = by_similarity if method == "similarity" else plain
                got = answers(world, verdict, roots, method, budget)
                accuracy = float((got >= 0.5).mean())
                rows.append(
                    {
                        "planner_sees": sees,
                        "method": method,
                        "simulations": budget,
                        "accuracy": accuracy,
                        "error": math.sqrt(accuracy * (1 - accuracy) / len(roots)),
                        "regret": float((best[roots] - got).mean()),
                        "fall": max(0.0, last - accuracy),
                        "cpu_s": time.process_time() - start,
                    }
                )
                last = accuracy
    print(table(rows))
    figures = {
        f"regret_closed_at_256_{row['planner_sees']}_{row['method']}": row["regret"]
        for row in rows
        if row["simulations"] == 256
    }
    figures["regret_closed_at_256"] = figures["regret_closed_at_256_rewards_gumbel"]
    for sees in ("rewards", "verifier"):
        figures[f"largest_fall_{sees}"] = max(row["fall"] for row in rows if row["planner_sees"] == sees)
    _plot(rows)
    emit("search_quality", figures, rows)


def _plot(rows: list[dict[str, Any]]) -> None:
    """Draws accuracy by budget into runs/search_quality.svg, where matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    figure = Figure(figsize=(11, 4.5))
    for column, sees in enumerate(("rewards", "verifier")):
        axes = figure.add_subplot(1, 2, column + 1)
        for method in sorted({row["method"] for row in rows}):
            mine = [row for row in rows if row["method"] == method and row["planner_sees"] == sees]
            axes.plot([r["simulations"] for r in mine], [r["accuracy"] for r in mine], marker=".", label=method)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("simulations a move")
        axes.set_ylabel("accuracy")
        axes.set_title(f"the planner sees: {sees}")
    axes.legend(fontsize=7)
    figure.tight_layout()
    folder = Path("runs")
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / "search_quality.svg")


if __name__ == "__main__":
    main()
