"""The bundled world: how good each model is, what can be had without learning, and what the tree can reach.

Measured on held-out prompts (the test split). The judge and the completeness model are measured on answers that the
family really gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import emit, parse, table

from treegym.models.family.baselines import Family, baseline_answers, load_family, right
from treegym.models.family.verdicts import completeness_report, judge_report
from treegym.models.tasks import KINDS, Problem, problems
from treegym.tree.solve import solve
from treegym.tree.token_tree import TokenTree

TEST_PROMPTS = 800
TREE = Path(__file__).resolve().parent.parent / "tree" / "data" / "bundled.tree"


def main() -> None:
    """Prints the tables and the closing line."""
    args = parse(__doc__ or "")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    family = load_family()
    held_out = problems("test", 80 if args.quick else TEST_PROMPTS)
    figures, rows = answers_table(family, held_out)
    print(f"Greedy accuracy on {len(held_out)} test prompts, by kind:\n\n{table(rows)}\n")
    cells: list[dict[str, Any]] = [{"table": "answers", **row} for row in rows]
    for title, report in (("Judge", judge_report(held_out)), ("Completeness", completeness_report(held_out))):
        print(f"{title}:\n\n{table(report)}\n")
        cells += [{"table": title.lower(), **row} for row in report]
    if TREE.exists():
        tree_figures, tree_rows = tree_table(TokenTree.open(TREE))
        figures |= tree_figures
        print(f"The bundled tree:\n\n{table(tree_rows)}\n")
        cells += [{"table": "tree", **row} for row in tree_rows]
    else:
        print(f"There is no bundled tree at {TREE}; `make tree` grows it.\n")
    print(table([{"figure": name, "value": value} for name, value in figures.items()]))
    emit("teachers", figures, cells)


def answers_table(family: Family, held_out: Sequence[Problem]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Returns the figures and one row per model or combination, with its accuracy by kind."""
    answers = baseline_answers(family, [problem.prompt for problem in held_out])
    correct = {name: right(texts, held_out) for name, texts in answers.items()}
    correct["any teacher"] = np.any([correct[name] for name in family.teachers], axis=0)
    kinds = np.array([problem.kind for problem in held_out])
    rows = [
        {
            "who": name,
            **{kind: float(flags[kinds == kind].mean()) for kind in KINDS},
            "all": float(flags.mean()),
            "tokens": float(np.mean([len(text) + 1 for text in answers[name]])) if name in answers else "",
        }
        for name, flags in correct.items()
    ]
    accuracy = {row["who"]: row["all"] for row in rows}
    figures = {
        "any_teacher_accuracy": accuracy["any teacher"],
        "primary_accuracy": accuracy["tiny-primary"],
        "best_single_teacher": max(accuracy[name] for name in family.teachers),
        "best_unlearned_baseline": max(value for name, value in accuracy.items() if name != "any teacher"),
    }
    return figures, rows


def tree_table(tree: TokenTree) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Returns the reachable share on test roots, and one row a split."""
    ends = (tree.child_count == 0) & ~np.isnan(tree.verdict)  # [N]
    correct = ends & (tree.verdict >= 0.5)  # [N]
    reward = np.where(correct, 1.0, 0.0)  # [N]
    reachable = solve(tree, reward, terminal=ends, correct=correct)
    owner = tree.root_of(np.arange(tree.size))  # [N]
    roots = np.asarray(tree.root_node)
    splits = np.asarray(tree.splits)
    rows: list[dict[str, Any]] = []
    for split in ("train", "validation", "test", "all"):
        chosen = np.ones(len(roots), bool) if split == "all" else splits == split  # [R]
        inside = chosen[owner]  # [N]
        inner = inside & (tree.child_count > 0)
        depths = tree.depth[correct & inside]
        shortest = reachable.shortest[roots[chosen]]
        rows.append(
            {
                "split": split,
                "roots": int(chosen.sum()),
                "nodes": float(inside.sum() / max(1, chosen.sum())),
                "branching": float(tree.child_count[inner].mean()),
                "deciding": float((tree.child_count[inner] > 1).mean()),
                "depth of ends": float(tree.depth[ends & inside].mean()),
                "reachable": float((shortest >= 0).mean()),
                "shortest correct": float(shortest[shortest >= 0].mean()),
                "mean correct": float(depths.mean()),
                **_shares(tree, inside),
            }
        )
    figures = {"tree_reachable": next(row["reachable"] for row in rows if row["split"] == "test")}
    return figures, rows


def _shares(tree: TokenTree, inside: np.ndarray) -> dict[str, float]:
    """Returns, for each model, the share of children it proposed; a child may have several proposers."""
    children = inside & (tree.parent >= 0)  # [N]
    names = tree.header.get("proposers", ["primary", *tree.header["teachers"]])
    return {f"by {name}": float(((tree.proposers[children] >> bit) & 1).mean()) for bit, name in enumerate(names)}


if __name__ == "__main__":
    main()
