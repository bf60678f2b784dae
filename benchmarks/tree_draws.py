"""Draws from a closed tree for `tree_advantages`: chains, branching trees, forks and auxiliary texts, by their tokens.

A draw is a tree of segments (`DrawTree`) with the nodes of the closed tree that each segment's tokens are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treegym.agents.draw_tree import DrawTree
from treegym.tree.flags import END
from treegym.tree.token_tree import TokenTree


@dataclass
class Draw:
    """What was drawn of one prompt."""

    tree: DrawTree
    edges: list[np.ndarray]  # of each segment, its tokens' nodes in the closed tree
    tokens: int  # all that were sampled, those of auxiliary texts too
    value: np.ndarray | None = None  # [D] means of auxiliary texts


class Sampler:
    """Draws from a policy over the children of a closed tree."""

    def __init__(self, tree: TokenTree, probability: np.ndarray, rng: np.random.Generator) -> None:
        self.first, self.count = tree.first_child.astype(np.int64), tree.child_count.astype(np.int64)
        self.ends = (tree.flags & END) != 0
        self.reward = np.nan_to_num(tree.verdict.astype(np.float64))
        self.probability, self.rng = probability, rng

    def text(self, node: int, most: int = 10**6) -> list[int]:
        """Returns the nodes of a text drawn from `node` on, at most so many."""
        path = []
        while not self.ends[node] and self.count[node] and len(path) < most:
            below = self.probability[self.first[node] : self.first[node] + self.count[node]]
            node = int(self.first[node] + min(np.searchsorted(below.cumsum(), self.rng.random()), len(below) - 1))
            path.append(node)
        return path


class Builder:
    """Puts segments together."""

    def __init__(self, sampler: Sampler, root: int) -> None:
        self.s, self.parent, self.edges, self.at = sampler, [-1], [np.empty(0, np.int64)], [root]
        self.forced: list[int] = []
        self.tokens = 0

    def add(self, above: int, path: list[int], *, paid: bool = True) -> int:
        """Adds a segment below another one and returns it."""
        self.parent.append(above)
        self.edges.append(np.array(path, np.int64))
        self.at.append(path[-1])
        self.tokens += len(path) * paid
        return len(self.parent) - 1

    def over(self, node: int) -> bool:
        return bool(self.s.ends[self.at[node]] or not self.s.count[self.at[node]])

    def done(self, value: np.ndarray | None = None) -> Draw:
        size, at = len(self.parent), np.array(self.at)
        ends = np.array([self.over(d) and d > 0 for d in range(size)], np.int64)
        forced = np.zeros(size, np.bool_)
        forced[self.forced] = True
        sure = np.array([1.0 if not len(e) else self.s.probability[e[0]] for e in self.edges])
        tree = DrawTree(
            np.array(self.parent),
            np.ones(size, np.int64),
            ends,
            np.where(ends > 0, self.s.reward[at], 0.0),
            forced,
            sure,
        )
        return Draw(tree, self.edges, self.tokens, value)


def chains(s: Sampler, root: int, budget: int, *, segment: int = 10**6) -> Builder:
    """Independent texts until the budget is spent, in segments of so many tokens."""
    made = Builder(s, root)
    while made.tokens < budget:
        here, path = 0, s.text(root)
        for start in range(0, len(path), segment):
            here = made.add(here, path[start : start + segment])
    return made


def merged(s: Sampler, root: int, budget: int) -> Draw:
    """The same texts, merged where they are the same: each token a segment."""
    texts = [made for made in chains(s, root, budget).edges if len(made)]
    place, parent, edges, times, ends = {root: 0}, [-1], [np.empty(0, np.int64)], [len(texts)], [0]
    for text in texts:
        above = 0
        for node in text.tolist():
            if node not in place:
                place[node] = len(parent)
                parent.append(above)
                edges.append(np.array([node]))
                times.append(0)
                ends.append(0)
            above = place[node]
            times[above] += 1
        ends[above] += 1
    count = np.array(ends)
    at = np.array([root] + [int(e[0]) for e in edges[1:]])
    size = len(parent)
    tree = DrawTree(
        np.array(parent), np.array(times), count, np.where(count > 0, s.reward[at], 0.0), np.zeros(size, np.bool_),
        np.where(np.arange(size) > 0, s.probability[at], 1.0),
    )  # fmt: skip
    return Draw(tree, edges, sum(len(t) for t in texts))


def branching(s: Sampler, root: int, budget: int, *, width: int = 2, segment: int = 4, levels: int = 3) -> Draw:
    """Texts that branch into `width` at every segment's end, the last segment open-ended, until the budget is spent."""
    made = Builder(s, root)
    while made.tokens < budget:
        front = [made.add(0, s.text(root, segment))]
        for level in range(1, levels):
            most = segment if level < levels - 1 else 10**6
            front = [
                made.add(d, s.text(made.at[d], most)) for d in front if not made.over(d) for _ in range(width)
            ]  # fmt: skip
    return made.done()


def forks(s: Sampler, root: int, budget: int, *, places: int = 2, completions: int = 2) -> Draw:
    """Trunks, each said anew after its most surprising tokens but the first (EPTree), until the budget is spent."""
    made = Builder(s, root)
    while made.tokens < budget:
        trunk = s.text(root)
        order = sorted(range(1, len(trunk)), key=lambda t: s.probability[trunk[t]])[:places]
        here, start = 0, 0
        for cut in [*sorted(order), len(trunk)]:
            node = made.add(here, trunk[start:cut])
            if start:
                made.forced.append(node)
                for _ in range(completions):
                    made.add(here, s.text(made.at[here]))
            here, start = node, cut
    return made.done()


def vine(s: Sampler, root: int, budget: int, *, segment: int = 4, extra: int = 3) -> Draw:
    """Chains in segments, with auxiliary texts from the prompt and the end of each segment."""
    made = Builder(s, root)
    value: list[float] = [0.0]
    texts = [s.text(root) for _ in range(extra)]
    made.tokens += sum(map(len, texts))
    value[0] = float(np.mean([s.reward[t[-1]] for t in texts]))
    while made.tokens < budget:
        here, path = 0, s.text(root)
        for start in range(0, len(path), segment):
            here = made.add(here, path[start : start + segment])
            if made.over(here):
                value.append(float(s.reward[made.at[here]]))
                continue
            texts = [s.text(made.at[here]) for _ in range(extra)]
            made.tokens += sum(map(len, texts))
            value.append(float(np.mean([s.reward[t[-1]] for t in texts])))
    return made.done(np.array(value))
