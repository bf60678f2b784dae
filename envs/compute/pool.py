"""A pool of chains per prompt: what a model would say if it were asked again and again, for replay without replacement.

The chains of a prompt that share a beginning are next to each other, so what a fork may go on with is a range.

Letters: Q prompts, C chains, J segments of the longest chain, A answers of the prompt that has most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from treegym.checks import number, whole
from treegym.envs.token_tree.clusters import answer_clusters
from treegym.errors import ConfigError, suggest
from treegym.tree.flags import END
from treegym.tree.samples import counts, drawn, leaves
from treegym.tree.token_tree import SPLITS, TokenTree

__all__ = ["ChainPool", "pool_of_tree", "synthetic_pool"]


@dataclass(frozen=True)
class ChainPool:
    """The chains of many prompts, in flat arrays."""

    start: np.ndarray  # [Q + 1] int64, where each prompt's chains begin
    length: np.ndarray  # [C] int64, tokens
    answer: np.ndarray  # [C] int64, which of the prompt's answers it ends with; -1: none
    score: np.ndarray  # [C] float32, a judge's opinion of it in 0..1
    right: np.ndarray  # [Q, A] bool, which answers are correct
    probe: np.ndarray  # [C, J] int64, the answer that it would be cut to after each segment; -1: none
    low: np.ndarray  # [C, J + 1] int64, the chains that share its first j segments are low..high - 1
    high: np.ndarray  # [C, J + 1] int64
    segment: int  # tokens of a segment
    prompts: tuple[str, ...]
    splits: tuple[str, ...]
    features: np.ndarray  # [Q, D] float32, what is known of a prompt before any token is spent; D may be 0
    likelihood: np.ndarray  # [C, J] float32, the model's probability of a token said so far, on (geometric) average
    kinds: tuple[str, ...]  # what kind of task each prompt is; "" where nobody says

    def __post_init__(self) -> None:
        sizes = np.diff(self.start)
        if (sizes < 1).any():
            raise ConfigError(
                f"prompt {int(np.flatnonzero(sizes < 1)[0])} has no chain; every prompt needs at least one"
            )
        if (self.length < 1).any():
            raise ConfigError(
                f"chain {int(np.flatnonzero(self.length < 1)[0])} has no token; at least one was expected"
            )

    @property
    def num_prompts(self) -> int:
        return len(self.start) - 1

    @property
    def num_segments(self) -> int:
        return self.probe.shape[1]

    @property
    def correct(self) -> np.ndarray:
        """Whether each chain ends with a correct answer ``[C] bool``."""
        prompt = np.repeat(np.arange(self.num_prompts), np.diff(self.start))
        return (self.answer >= 0) & self.right[prompt, np.maximum(self.answer, 0)]

    def chains(self, prompt: int) -> slice:
        """Returns where a prompt's chains are."""
        return slice(int(self.start[prompt]), int(self.start[prompt + 1]))

    def answer_counts(self, prompt: int) -> np.ndarray:
        """Returns how many chains end with each answer ``[A] int64``; those without one are not counted."""
        ends = self.answer[self.chains(prompt)]
        return np.bincount(ends[ends >= 0], minlength=self.right.shape[1])

    def roots_in(self, split: str) -> np.ndarray:
        """Returns the prompts of a split ``[.] int64``; "all" is every prompt."""
        if split != "all" and split not in SPLITS:
            raise ConfigError(f"split is {split!r}; it must be one of {', '.join(SPLITS)} or all")
        return np.flatnonzero([split in ("all", own) for own in self.splits])


def pool_of_tree(
    tree: TokenTree, *, segment: int = 2, samples: int = 64, policy: str = "primary", seed: int = 0
) -> ChainPool:
    """Returns the chains of a tree: those that were sampled, or of a closed tree, draws from a policy over children.

    A chain is cut into segments of so many tokens. What it would answer if it were asked after a segment is where the
    likeliest way on from there ends, by the primary's log-probabilities. Its score is the judge's; without one, how
    likely the primary finds a token of it on average. Forked texts are left out: they are no draws from the prompt.
    """
    whole("segment", segment, low=1)
    if not (tree.has("sampled") and tree.sampled.any()):
        tree = drawn(tree, policy, samples=samples, seed=seed)
    found = leaves(tree, counts(tree, kind="chains"))
    node = np.repeat(found.node, found.times)
    root = np.repeat(found.root, found.times)
    if not len(np.unique(root)) == tree.num_roots:
        raise ConfigError("some prompt of the tree has no chain; sample every prompt, or leave it out")
    cluster = np.asarray(tree.answer, np.int64) if tree.has("answer") else answer_clusters(tree).astype(np.int64)
    length = tree.depth[node].astype(np.int64)
    cuts = np.minimum(np.arange(1, -(-int(length.max()) // segment) + 1)[None] * segment, length[:, None])  # [C, J]
    passed = _ancestors(tree, node, np.concatenate([np.zeros((len(node), 1), np.int64), cuts], axis=1))  # [C, J + 1]
    low, high = _ranges(passed)
    likelihood = _likelihoods(tree, passed[:, 1:])
    right = np.zeros((tree.num_roots, max(int(cluster.max(initial=-1)) + 1, 1)), np.bool_)
    ends = np.flatnonzero((tree.flags & END) != 0)
    good = ends[(tree.verdict[ends] >= 0.5) & (cluster[ends] >= 0)]
    right[tree.root_of(good) if len(good) else [], cluster[good]] = True
    return ChainPool(
        start=np.searchsorted(root, np.arange(tree.num_roots + 1)),
        length=length,
        answer=cluster[node],
        score=_scores(tree, node, likelihood),
        right=right,
        probe=cluster[_likeliest_ends(tree)[passed[:, 1:]]],
        low=low,
        high=high,
        segment=segment,
        prompts=tuple(tree.prompts),
        splits=tuple(tree.splits),
        features=_features(tree),
        likelihood=likelihood,
        kinds=tuple(tree.kinds),
    )  # fmt: skip


def _ancestors(tree: TokenTree, node: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Returns the node above each of `node` ``[C]`` at every one of its depths ``[C, J]`` (rising)."""
    found = np.repeat(node[:, None], depth.shape[1], axis=1)
    for column in range(depth.shape[1] - 1, -1, -1):
        here = found[:, column]
        while (deep := tree.depth[here] > depth[:, column]).any():
            here = np.where(deep, tree.parent[here], here)
        found[:, : column + 1] = here[:, None]
    return found


def _ranges(passed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for chains in the order of a walk that goes deep first, who else came through each node ``[C, J]``."""
    low, high = np.empty_like(passed), np.empty_like(passed)
    for column in range(passed.shape[1]):
        edges = np.flatnonzero(np.diff(passed[:, column], prepend=-1))
        sizes = np.diff(np.append(edges, len(passed)))
        low[:, column], high[:, column] = np.repeat(edges, sizes), np.repeat(edges + sizes, sizes)
    return low, high


def _likeliest_ends(tree: TokenTree) -> np.ndarray:
    """Returns where the primary's greedy way on from each node ends ``[N] int64``."""
    parent, prior = np.asarray(tree.parent, np.int64), np.asarray(tree.prior)
    inner = np.flatnonzero(parent >= 0)
    order = inner[np.lexsort((-inner, prior[inner]))]  # the likeliest child, and of equals the first, comes last
    way = np.arange(tree.size)
    way[parent[order]] = order
    while not np.array_equal(following := way[way], way):  # each round doubles how far is seen
        way = following
    return way


def _scores(tree: TokenTree, node: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Returns the judge's opinion of every end; without a judge, how likely the primary finds it ``[C] float32``."""
    judged = np.asarray(tree.judge[node], np.float32)
    return np.clip(judged, 0.0, 1.0) if np.isfinite(judged).all() else likelihood[:, -1]


def _likelihoods(tree: TokenTree, passed: np.ndarray) -> np.ndarray:
    """Returns the primary's probability of a token on the way to each node, on geometric average, like `passed`."""
    total = np.zeros(tree.size)
    for level in range(1, int(tree.depth.max(initial=0)) + 1):
        here = np.flatnonzero(tree.depth == level)
        total[here] = total[tree.parent[here]] + tree.prior[here]
    return np.exp(total[passed] / tree.depth[passed]).astype(np.float32)


def _features(tree: TokenTree) -> np.ndarray:
    if not tree.has("context"):
        return np.zeros((tree.num_roots, 0), np.float32)
    return np.asarray(tree.context[tree.root_node], np.float32) / 127.0


def synthetic_pool(**settings: Any) -> ChainPool:
    """Returns made-up chains: prompts of hidden difficulty, answers that harden as a chain goes on, no model needed.

    Args:
        **settings: `prompts`, `chains` of each, `answers` (most of a prompt), `segments` (most of a chain), `segment`
            (tokens), `difficulty` (0: the right answer is the likeliest of every prompt; 1: of few), `seed`.
    """
    known = {"prompts": 64, "chains": 64, "answers": 6, "segments": 8, "segment": 16, "difficulty": 0.4, "seed": 0}
    for name in settings:
        if name not in known:
            raise ConfigError(f"synthetic pool: unknown setting {name!r}.{suggest(name, known)}")
    s: dict[str, Any] = {**known, **settings}
    for name, least in (("prompts", 1), ("chains", 1), ("answers", 2), ("segments", 2), ("segment", 1), ("seed", 0)):
        whole(f"synthetic pool: {name}", s[name], low=least, high=10**6)
    number("synthetic pool: difficulty", s["difficulty"], low=0, high=1)
    rng = np.random.default_rng(s["seed"])
    prompts, chains, answers, most = s["prompts"], s["chains"], s["answers"], s["segments"]
    ease = rng.beta(4 * (1 - s["difficulty"]) + 0.5, 4 * s["difficulty"] + 0.5, size=prompts)  # chance of a right chain
    wrong = rng.dirichlet(np.full(answers - 1, 0.6), size=prompts)
    law = np.concatenate([ease[:, None], (1 - ease[:, None]) * wrong], axis=1)  # [Q, A], the first is right
    answer = (law.cumsum(1)[:, None] < rng.random((prompts, chains, 1))).sum(2).clip(0, answers - 1)
    # Chains of hard prompts are longer; right ones are a little shorter.
    mean = 1 + (most - 1) * (0.25 + 0.5 * (1 - ease))
    spread = rng.normal(0, 0.15 * most, size=(prompts, chains)) - 0.1 * most * (answer == 0)
    cut = np.clip(np.rint(mean[:, None] + spread), 1, most).astype(np.int64)  # [Q, n] segments of each chain
    length = cut * s["segment"] - rng.integers(0, s["segment"], size=cut.shape)
    at = np.arange(1, most + 1) / cut[..., None]  # [Q, n, J] share of the chain that is said
    settled = rng.random((prompts, chains, 1)) < at**1.5
    guess = (law.cumsum(1)[:, None, None] < rng.random((prompts, chains, most, 1))).sum(3).clip(0, answers - 1)
    probe = np.where(settled | (at >= 1), answer[..., None], guess)
    score = np.clip(rng.normal(0.5 + 0.15 * (answer == 0), 0.2), 0, 1)
    total = prompts * chains
    first = np.repeat(np.arange(prompts) * chains, chains)
    low = np.concatenate([first[:, None], np.repeat(np.arange(total)[:, None], most, axis=1)], axis=1)
    high = np.concatenate([first[:, None] + chains, np.repeat(np.arange(total)[:, None] + 1, most, axis=1)], axis=1)
    right = np.zeros((prompts, answers), np.bool_)
    right[:, 0] = True
    names = rng.permuted(np.tile(np.arange(answers), (prompts, 1)), axis=1)  # no answer's number tells that it is right
    features = np.concatenate([ease[:, None], rng.random((prompts, 1))], axis=1) + rng.normal(0, 0.25, (prompts, 2))
    rows = np.arange(prompts)
    shuffled = np.zeros_like(right)
    shuffled[rows[:, None], names] = right
    return ChainPool(
        start=np.arange(prompts + 1) * chains,
        length=length.reshape(-1),
        answer=np.take_along_axis(names, answer, 1).reshape(-1).astype(np.int64),
        score=score.reshape(-1).astype(np.float32),
        right=shuffled,
        probe=names[rows[:, None, None], probe].reshape(total, most).astype(np.int64),
        low=low,
        high=high,
        segment=s["segment"],
        prompts=tuple(f"prompt {q}" for q in range(prompts)),
        splits=tuple(("train", "validation", "test")[i] for i in np.digitize(rows % 10, [6, 7])),
        features=np.clip(features, -1, 2).astype(np.float32) / 2,
        likelihood=np.zeros((total, most), np.float32),  # nobody said these chains
        kinds=("",) * prompts,
    )
