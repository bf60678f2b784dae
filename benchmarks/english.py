"""The English tree: how often each model's likeliest walk is right, any of them, and what the tree can reach.

Reads the tree alone; no model is needed. A teacher's walk takes the child that it finds likeliest at every step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import emit, parse, table

from treegym.tree.opening import load_tree
from treegym.tree.token_tree import TokenTree


def main() -> None:
    """Prints the tables and the closing line."""
    parse(__doc__ or "")
    tree = load_tree("bundled:english")
    walks = {"primary": right_walks(tree, tree.prior)} | {
        name: right_walks(tree, tree.teacher_logp[:, column]) for column, name in enumerate(tree.header["teachers"])
    }
    teachers = list(walks)[1:]
    walks["any teacher"] = np.any([walks[name] for name in teachers], axis=0)
    walks["reachable"] = reachable(tree)
    kinds = np.array([root.kind for root in tree.roots])
    names = sorted(set(kinds))
    rows = [
        {"who": who, "all": float(right.mean()), **{kind: float(right[kinds == kind].mean()) for kind in names}}
        for who, right in walks.items()
    ]
    print(f"Right walks on {tree.num_roots} questions, by kind:\n\n{table(rows)}\n")
    splits = np.asarray(tree.splits)
    by_split: list[dict[str, Any]] = [
        {"split": split, "questions": int((splits == split).sum())}
        | {who: float(right[splits == split].mean()) for who, right in walks.items()}
        for split in ("train", "validation", "test")
    ]
    print(table(by_split) + "\n")
    figures = {
        "any_teacher": float(walks["any teacher"].mean()),
        "best_single": max(float(walks[name].mean()) for name in teachers),
        "reachable": float(walks["reachable"].mean()),
        "primary": float(walks["primary"].mean()),
    }
    print(table([{"figure": name, "value": value} for name, value in figures.items()]))
    emit("english", figures, [*rows, *by_split])


def right_walks(tree: TokenTree, logp: np.ndarray) -> np.ndarray:
    """Returns for each root whether the walk to the child of the largest `logp` ends right ``[R] bool``."""
    found = np.zeros(tree.num_roots, bool)
    for root in range(tree.num_roots):
        node = int(tree.root_node[root])
        while tree.child_count[node]:
            first = int(tree.first_child[node])
            said = np.nan_to_num(logp[first : first + int(tree.child_count[node])].astype(np.float32), nan=-np.inf)
            node = first + int(said.argmax())
        found[root] = tree.verdict[node] >= 0.5
    return found


def reachable(tree: TokenTree) -> np.ndarray:
    """Returns for each root whether any of its ends is right ``[R] bool``."""
    owners = tree.root_of(np.flatnonzero(np.nan_to_num(np.asarray(tree.verdict), nan=0.0) >= 0.5))
    return np.isin(np.arange(tree.num_roots), owners)


if __name__ == "__main__":
    main()
