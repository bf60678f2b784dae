"""Search quality on held-out roots of the bundled tree: accuracy and regret of every method at equal budgets.

An answer is written token by token; before each token the method may take the given number of simulations from where
it stands. The verdict scores the final answer, against the best the tree holds. What a planner is told differs:

    rewards   what a deployment has: the judge's score at ends and a little of the primary's log-likelihood
    judge     the judge's score alone, to show what a planner makes of an imperfect judge
    verifier  the verdict itself, as where a checker exists

The policy is the primary's own; the value of a state is the mean return still to come at its depth when the primary
samples, measured on the training roots. For each setting, the row "optimum" is the answer that is exactly best by what
the planner is told (backward induction): a perfect planner. A method that approaches it cannot be blamed for the
accuracy it finds there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import emit, parse, table

from treegym.search import names
from treegym.search.closed import ClosedTree
from treegym.tree.token_tree import TokenTree
from treegym.tree.weights import initial_weights, similarity_scores

BUNDLED = Path(__file__).parents[1] / "tree" / "data" / "bundled.tree"
IN_KERNEL = ("puct", "gumbel", "uct", "ments", "rents", "similarity")
NO_BUDGET = ("greedy", "sample")  # these judge nothing but where they stand
CHARGED = ("beam", "best_first", "depth_first", "lookahead")  # what they leave of a budget, a larger one leaves too
BUDGETS = (16, 64, 256, 1024, 4096)
PYTHON_LIMIT = (
    1024  # for best_of_n, which goes on drawing paths that it knows; the others have seen whole trees by then
)
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the log-likelihood; the best on the validation roots is taken


def optimum(world: ClosedTree, parent: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Returns the end that is best by the world's reward from each root, int64."""
    worth = np.where(world.terminal, 0.0, -np.inf)
    best = np.full(len(worth), -1)
    for node in range(len(worth) - 1, -1, -1):  # children come after their parents
        above, total = parent[node], world.reward[node] + worth[node]
        if above >= 0 and total > worth[above]:
            worth[above], best[above] = total, node
    at = roots.astype(np.int64)
    while not world.terminal[at].all():
        at = np.where(world.terminal[at], at, best[at])
    return at


def value_by_depth(tree: TokenTree, reward: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Returns the mean return still to come at each node's depth when the policy samples from `roots`, float32 [N]."""
    parent, depth = np.asarray(tree.parent), np.asarray(tree.depth).astype(np.int64)
    alive = np.asarray(tree.child_count) > 0
    chance = np.where(parent >= 0, np.exp(np.asarray(tree.prior, np.float64)), 0.0)
    siblings = np.bincount(np.maximum(parent, 0), weights=chance, minlength=len(parent))
    chance /= np.where(parent >= 0, siblings[parent], 1.0)
    to_come, reached = np.zeros(len(parent)), np.zeros(len(parent))
    reached[roots] = 1.0
    levels = [np.flatnonzero(depth == level) for level in range(1, int(depth.max()) + 1)]
    for level in reversed(levels):
        np.add.at(to_come, parent[level], chance[level] * (reward[level] + to_come[level]))
    for level in levels:
        reached[level] = reached[parent[level]] * chance[level]
    weight = np.bincount(depth[alive], weights=reached[alive], minlength=int(depth.max()) + 1)
    total = np.bincount(depth[alive], weights=(reached * to_come)[alive], minlength=int(depth.max()) + 1)
    return (total / np.maximum(weight, 1e-9))[depth].astype(np.float32)


def answers(world: ClosedTree, roots: np.ndarray, method: str, budget: int) -> tuple[np.ndarray, bool, float]:
    """Returns the end that is written from each root, int64, whether every search left some of its budget, and tokens.

    A token is one state judged: what an answer cost at most, on average.
    """
    at, alive, spare, tokens = roots.astype(np.int64), np.ones(len(roots), bool), True, 0
    options: dict[str, Any] = {"gumbel_scale": 0.0} if method in IN_KERNEL else {}
    for move in range(200):
        if not alive.any():
            break
        here = np.flatnonzero(alive)
        streams = {} if method == "greedy" else {"root_ids": here}
        found = world.search(at[here], method=method, num_simulations=budget, seed=move, **options, **streams)
        spare = spare and found.simulations < budget
        tokens += found.simulations * len(here)
        after = world.step(at[here], found.action)
        at[here] = after.states
        alive[here] = ~after.terminated
    return at, spare, tokens / len(roots)


class Bundled:
    """The bundled tree, what planners may be told of it, and how good an answer is."""

    def __init__(self, test_roots: int | None = None) -> None:
        """Opens the tree; `test_roots` cuts the held-out roots."""
        self.tree = tree = TokenTree.open(BUNDLED)
        self.ends, self.parent = np.asarray(tree.child_count) == 0, np.asarray(tree.parent)
        self.verdict = np.nan_to_num(np.asarray(tree.verdict, np.float32)) * self.ends
        self.judge = np.nan_to_num(np.asarray(tree.judge, np.float32)) * self.ends
        self.likelihood = np.where(self.parent >= 0, np.asarray(tree.prior, np.float32), np.float32(0.0))
        self.training, self.validation, test = (
            np.asarray(tree.root_node)[tree.roots_in(split)] for split in ("train", "validation", "test")
        )
        self.roots = test[:test_roots]
        weights = initial_weights(np.asarray(tree.first_child), np.asarray(tree.child_count))
        self.similarity = similarity_scores(tree, weights)
        choice = {
            weight: float(self.right(self.best(self._mixed(weight), self.validation)).mean()) for weight in WEIGHTS
        }
        self.weight = max(choice, key=lambda weight: (choice[weight], weight))
        print("a perfect planner on the validation roots, by the weight of the log-likelihood:", choice)
        self.told = {"rewards": self._mixed(self.weight), "judge": self.judge, "verifier": self.verdict}

    def _mixed(self, weight: float) -> np.ndarray:
        return (self.judge + np.float32(weight) * self.likelihood).astype(np.float32)

    def world(
        self, reward: np.ndarray, *, policy: np.ndarray | None = None, value: np.ndarray | None = None
    ) -> ClosedTree:
        """Returns the tree with that reward; policy and value are the primary's own and 0 unless given."""
        count = np.asarray(self.tree.child_count)
        logits = np.asarray(self.tree.prior, np.float32) if policy is None else policy
        worth = np.zeros(len(count), np.float32) if value is None else value
        return ClosedTree(np.asarray(self.tree.first_child), count, self.ends, reward, logits, worth, int(count.max()))

    def best(self, reward: np.ndarray, roots: np.ndarray) -> np.ndarray:
        """Returns the ends that a perfect planner finds."""
        return optimum(self.world(reward), self.parent, roots)

    def right(self, ended: np.ndarray) -> np.ndarray:
        """Returns whether answers are right, bool."""
        return self.verdict[ended] >= 0.5

    def measure(
        self, sees: str, budgets: tuple[int, ...], methods: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Returns a row for each method (all unless given) and budget."""
        reward, rows = self.told[sees], []
        value = value_by_depth(self.tree, reward, self.training)
        world, by_similarity = (self.world(reward, value=value, policy=p) for p in (None, self.similarity))
        highest = self.verdict[self.best(self.verdict, self.roots)]
        for method in ("optimum", *(names() if methods is None else methods)):
            before: np.ndarray | None = None
            ended, spare, tokens, start = self.best(reward, self.roots), False, 0.0, time.process_time()
            for budget in budgets:
                if before is not None and (method in ("optimum", *NO_BUDGET)):
                    continue
                if method != "optimum" and not spare:  # else a larger budget changes nothing
                    if method not in IN_KERNEL and budget > PYTHON_LIMIT:
                        continue
                    ended, spare, tokens = answers(
                        by_similarity if method == "similarity" else world, self.roots, method, budget
                    )
                    spare = spare and method in CHARGED
                correct = self.right(ended).astype(float)
                change = correct - (correct if before is None else before)
                rows.append(
                    {
                        "planner_sees": sees,
                        "method": method,
                        "simulations": budget,
                        "tokens": tokens,
                        "accuracy": float(correct.mean()),
                        "error": float(correct.std() / math.sqrt(len(correct))),
                        "regret": float((highest - self.verdict[ended]).mean()),
                        "told": float(_returns(reward, self.parent, ended).mean()),
                        "change": float(change.mean()),
                        "change_error": float(change.std() / math.sqrt(len(change))),
                        "cpu_s": time.process_time() - start,
                    }
                )
                before, start = correct, time.process_time()
        return rows


def report(rows: list[dict[str, Any]], weight: float) -> None:
    """Prints the table, the falls and the closing line, and draws the plot."""
    print(table(rows))
    fell = [row for row in rows if row["change"] < -2 * row["change_error"]]
    print("\nfalls by more than twice their error, as the budget grew:")
    print(table(fell) or "none")
    figures = {"likelihood_weight": weight}
    figures |= {
        f"regret_closed_at_256_{row['planner_sees']}_{row['method']}": row["regret"]
        for row in rows
        if row["simulations"] == 256
    }
    figures["regret_closed_at_256"] = figures["regret_closed_at_256_rewards_gumbel"]
    for sees in sorted({row["planner_sees"] for row in rows}):
        figures[f"falls_{sees}"] = sum(row["planner_sees"] == sees for row in fell)
        figures[f"largest_fall_{sees}"] = max(max(0.0, -row["change"]) for row in rows if row["planner_sees"] == sees)
    _plot(rows)
    emit("search_quality", figures, rows)


def main() -> None:
    """Runs the benchmark."""
    arguments = parse(__doc__ or "")
    bundled = Bundled(24 if arguments.quick else None)
    budgets = (16, 256) if arguments.quick else BUDGETS
    report([row for sees in bundled.told for row in bundled.measure(sees, budgets)], bundled.weight)


def _returns(reward: np.ndarray, parent: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Returns the sum of rewards on the way to each end: what the planner was to maximise."""
    at, total = ended.copy(), np.zeros(len(ended))
    while (at >= 0).any():
        total += np.where(at >= 0, reward[at], 0.0)
        at = np.where(at >= 0, parent[at], -1)
    return total


def _plot(rows: list[dict[str, Any]]) -> None:
    """Draws accuracy by budget into runs/search_quality.svg, where matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    told = ("rewards", "judge", "verifier")
    figure = Figure(figsize=(13, 4.5))
    panels = figure.subplots(1, 3, sharey=True)
    for axes, sees in zip(panels, told, strict=True):
        for i, method in enumerate(sorted({row["method"] for row in rows})):
            mine = [row for row in rows if row["method"] == method and row["planner_sees"] == sees]
            if len(mine) == 1:
                axes.axhline(mine[0]["accuracy"], color=f"C{i % 10}", linestyle=(":", "--")[i // 10], label=method)
            else:
                x, y = [r["simulations"] for r in mine], [r["accuracy"] for r in mine]
                axes.plot(x, y, color=f"C{i % 10}", linestyle=("-", "-.")[i // 10], marker=".", label=method)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("simulations a move")
        axes.set_title(f"the planner is told: {sees}")
    panels[0].set_ylabel("accuracy on held-out roots")
    panels[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    folder = Path("runs")
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / "search_quality.svg")


if __name__ == "__main__":
    main()
