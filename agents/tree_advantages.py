r"""Advantages from trees of draws, each written as its definition: what every segment's tokens are given.

All return a `Credit`: an advantage per segment and how much its tokens weigh in the loss. Where a method repeats shared
tokens in every text, the weight is the number of texts n; where an edge is trained once, it is 1. The truth to hold
them against is `tree.values(policy).advantage`.

R is a text's return, V the mean over the texts through a segment, u a segment, p its parent. Where only the code of a
method, or only the text about it, could be read, the docstring says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from treegym.agents.draw_tree import DrawTree, episode_tree
from treegym.checks import one_of
from treegym.errors import ConfigError

__all__ = [
    "ESTIMATORS", "Credit", "dapo", "estimator", "grpo", "rloo", "spo_chain", "spo_tree", "step_advantages",
    "tree_grpo", "treepo", "treerl", "treerl_code", "treerpo", "vine",
]  # fmt: skip


class Credit(NamedTuple):
    """What the tokens of each segment are given."""

    advantage: np.ndarray  # [D] float64, 0 at prompts
    weight: np.ndarray  # [D] float64, 0: not trained on


def grpo(tree: DrawTree, *, eps: float = 1e-6) -> Credit:
    r"""Group-relative: :math:`A = (R - mean) / (std + \epsilon)` over the prompt's texts, ddof 1.

    A shared token gets the sum over its texts, which is :math:`n_u (V_u - mean) / std`: plain groups already give
    credit to nodes (https://arxiv.org/abs/2402.03300).
    """
    mean, std = _by_prompt(tree)
    scale = np.where(std > 1e-6, 1.0 / (std + eps), 0.0)
    return _credit(tree, (tree.leaf_mean() - mean) * scale)


def dapo(tree: DrawTree) -> Credit:
    """GRPO without prompts whose texts all have the same return (dynamic sampling; https://arxiv.org/abs/2503.14476)."""
    _, std = _by_prompt(tree)
    credit = grpo(tree)
    return credit._replace(weight=np.where(std > 1e-6, credit.weight, 0.0))


def rloo(tree: DrawTree) -> Credit:
    r"""Leave-one-out: :math:`A = R - mean of the others = \frac{n}{n-1} (R - mean)` (https://arxiv.org/abs/2402.14740)."""
    mean, _ = _by_prompt(tree)
    n = tree.texts[tree.root]
    return _credit(tree, (tree.leaf_mean() - mean) * np.where(n > 1, n / np.maximum(n - 1, 1), 0.0))


def vine(tree: DrawTree, value: np.ndarray) -> Credit:
    r"""VinePPO (https://arxiv.org/abs/2410.01679): :math:`A_u = \hat V(u) - \hat V(p)`, reward at the end, no discount.

    Args:
        tree: the chains that are trained on, cut into steps.
        value: ``[D]`` means of K auxiliary texts from the end of each step, which are trained on nowhere; of a finished
            text its return.
    """
    value = np.asarray(value, np.float64)
    if value.shape != (tree.size,) or not np.isfinite(value).all():
        raise ConfigError(
            "VinePPO needs a value of every segment from texts of its own, which are not trained on; "
            f"{value.shape} came for {tree.size} segments"
        )
    return _credit(tree, value - tree.above(value))


def spo_chain(tree: DrawTree, value: np.ndarray, *, sure: float = 0.9, every: int = 5) -> Credit:
    r"""SPO-chain (https://arxiv.org/abs/2505.23564), as in its code: credit between cutpoints, to uncertain tokens.

    Cutpoints are tokens of probability below `sure`; a new stretch begins before every fifth. All tokens of a stretch
    get the difference of the auxiliary means at its end and at its beginning; tokens before the first cutpoint get 0;
    of the rest only the uncertain ones are trained on.

    Args:
        tree: chains, one token per segment.
        value: ``[D]`` auxiliary means *after* each token; of a finished text its return.
        sure: tokens at least as likely are not cutpoints and are left out of the loss.
        every: cutpoints of a stretch.
    """
    _need_probabilities(tree)
    uncertain = (tree.sure < sure) & (tree.parent >= 0)
    ordinal = np.zeros(tree.size, np.int64)  # cutpoints up to and with each token
    begins = np.full(tree.size, -1, np.int64)  # the token that each stretch begins with
    for node in range(tree.size):
        above = tree.parent[node]
        if above < 0:
            continue
        ordinal[node] = ordinal[above] + uncertain[node]
        new = uncertain[node] and (ordinal[node] - 1) % every == 0
        begins[node] = node if new else begins[above]
    finish = np.arange(tree.size)  # the last token of a chain's stretch
    for node in range(tree.size - 1, -1, -1):
        above = tree.parent[node]
        if above >= 0 and begins[above] == begins[node] and begins[node] >= 0:
            finish[above] = finish[node]
    before = tree.above(np.asarray(value, np.float64))
    inside = begins >= 0
    advantage = np.where(inside, np.asarray(value)[finish] - before[np.maximum(begins, 0)], 0.0)
    credit = _credit(tree, advantage)
    return credit._replace(weight=np.where(uncertain & inside, credit.weight, 0.0))


def spo_tree(tree: DrawTree, *, divide: bool = False, eps: float = 1e-6) -> Credit:
    r"""SPO-tree, as in its code: :math:`A = \hat V(u) - \hat V(p)` with :math:`\hat V` the mean over *direct children*.

    Every edge is trained once, edges of no advantage not at all. The parent's mean holds the child itself, so credit
    shrinks by 1 - 1/N. `divide`: by the siblings' standard deviation, ddof 0.
    """
    value = tree.child_mean()
    advantage = value - tree.above(value)
    if divide:
        spread = _sibling_spread(tree, value)
        advantage = np.where(spread > eps, advantage / np.maximum(spread, eps), 0.0)
    below = tree.parent >= 0
    return Credit(np.where(below, advantage, 0.0), (below & (np.abs(advantage) > 0)) * tree.times.astype(np.float64))


def treerpo(tree: DrawTree, *, variant: str = "mean", floor: float = 0.1) -> Credit:
    """TreeRPO (https://arxiv.org/abs/2506.05183), of which only texts about it were read: siblings form the group.

    The value of a node is the mean of its children's. How the paper normalises was not read; `variant` is "mean"
    (difference from the siblings' mean) or "floored" (that over their standard deviation, at least `floor`).
    """
    one_of("variant", variant, ("mean", "floored"))
    value = tree.child_mean()
    advantage = value - tree.above(value)
    if variant == "floored":
        advantage = advantage / np.maximum(_sibling_spread(tree, value), floor)
    return _credit(tree, advantage)


def treerl(tree: DrawTree) -> Credit:
    r"""TreeRL (https://arxiv.org/abs/2506.11902), the paper's form as told:
    :math:`A = (V_u - V_{root} + V_u - V_p) / \sqrt{n_u}`, of returns less the mean of the other texts'."""
    value = _centred_value(tree)
    root, n = value[tree.root], tree.texts
    return _credit(tree, (value - root + value - tree.above(value)) / np.sqrt(np.maximum(n, 1)))


def treerl_code(tree: DrawTree) -> Credit:
    r"""TreeRL, its code's form: :math:`2 V_u / \sqrt{n_u} - V_p / \sqrt{n_p}`; where the local part
    :math:`V_u / \sqrt{n_u} - V_p / \sqrt{n_p}` is exactly 0, the predecessor's advantage is taken."""
    scaled = _centred_value(tree) / np.sqrt(np.maximum(tree.texts, 1))
    local = scaled - tree.above(scaled)
    advantage = scaled + local
    for node in range(tree.size):
        if tree.parent[node] >= 0 and local[node] == 0.0 and tree.parent[tree.parent[node]] >= 0:
            advantage[node] = advantage[tree.parent[node]]
    return _credit(tree, advantage)


def treepo(tree: DrawTree, *, weighted: bool = False) -> Credit:
    r"""TreePO (https://arxiv.org/abs/2508.17445), as in its code: one number per text, the mean over its depths j of
    :math:`R - mean of the texts that share its ancestor at j`; the prompt always counts, a deeper one if shared.

    `weighted`: by the size of these groups. A segment gets the mean over its texts.
    """
    value, n = tree.leaf_mean(), tree.texts
    counts = (tree.parent < 0) | (n > 1)
    weight = np.where(counts, n if weighted else 1.0, 0.0)
    mass, means = np.zeros(tree.size), np.zeros(tree.size)  # summed over a node and all above it
    for node in range(tree.size):
        above = tree.parent[node]
        mass[node] = (mass[above] if above >= 0 else 0.0) + weight[node]
        means[node] = (means[above] if above >= 0 else 0.0) + weight[node] * value[node]
    of_text = np.where(tree.ends > 0, tree.score - means / np.maximum(mass, 1e-12), 0.0)
    return _credit(tree, tree.up(tree.ends * of_text) / np.maximum(n, 1))


def tree_grpo(tree: DrawTree, *, eps: float = 1e-6) -> Credit:
    """Tree-GRPO (https://arxiv.org/abs/2509.21240): a text's z-score in its prompt plus that in its tree, ddof 1.

    The trees of a prompt are those below its first segments; one of a single text has mean 0 and deviation 1.
    """
    depth, top = tree.depth, np.arange(tree.size)
    for node in range(tree.size):
        if depth[node] > 1:
            top[node] = top[tree.parent[node]]
    mean, std = _by(tree, top)
    alone = tree.texts[top] <= 1
    inner = (tree.score - np.where(alone, 0.0, mean)) / np.where(alone, 1.0, std + eps)
    mean, std = _by_prompt(tree)
    outer = (tree.score - mean) / (std + eps)
    of_text = np.where(tree.ends > 0, inner + outer, 0.0)
    return _credit(tree, tree.up(tree.ends * of_text) / np.maximum(tree.texts, 1))


ESTIMATORS: dict[str, Callable[[DrawTree], Credit]] = {
    "grpo": grpo, "rloo": rloo, "dapo": dapo, "spo_tree": spo_tree, "treerpo": treerpo,
    "treerpo_floored": lambda tree: treerpo(tree, variant="floored"),
    "treerl": treerl, "treerl_code": treerl_code, "treepo": treepo,
    "treepo_weighted": lambda tree: treepo(tree, weighted=True), "tree_grpo": tree_grpo,
}  # fmt: skip
NEEDS_FRESH = ("spo_tree", "treerpo", "treerpo_floored")  # claim unbiased values of nodes


def estimator(name: str) -> Callable[[DrawTree], Credit]:
    """Returns an estimator by name, which refuses trees on which it would not be what it claims to be."""
    one_of("the tree advantage", name, ESTIMATORS)

    def checked(tree: DrawTree) -> Credit:
        if not tree.ends.any():
            raise ConfigError(f"{name} needs sampled texts with returns, and this tree holds none; sample it first")
        if name in NEEDS_FRESH and tree.forced.any():
            raise ConfigError(
                f"{name} takes the children of a node for independent draws, and {int(tree.forced.sum())} of this tree "
                "are what forks were put at; use boundaries or random places, or an estimator for forks (treerl)"
            )
        return ESTIMATORS[name](tree)

    return checked


def step_advantages(name: str, rollout: Any, returns: np.ndarray) -> np.ndarray:
    """Returns the advantage of every step of a rollout of groups ``[N] float32``.

    The episodes of a group are merged where they did the same; the steps of all of them are in the loss, so what a
    method trains less often than that is scaled down.

    Args:
        name: of `ESTIMATORS`.
        rollout: `Trajectories`, of whole episodes.
        returns: ``[E]`` of each episode, shaped.
    """
    tree, node = episode_tree(rollout.actions, rollout.lengths, rollout.groups, returns, rollout.log_probs)
    credit = estimator(name)(tree)
    return (credit.advantage * credit.weight / np.maximum(tree.texts, 1))[node].astype(np.float32)


# ---------------------------------------------------------------- parts of them


def _credit(tree: DrawTree, advantage: np.ndarray) -> Credit:
    below = tree.parent >= 0
    return Credit(np.where(below, advantage, 0.0), np.where(below, tree.texts, 0.0))


def _by(tree: DrawTree, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation (ddof 1) of the returns of all texts of each node's owner ``[D]``."""
    n = np.bincount(owner, tree.ends, minlength=tree.size)
    mean = np.bincount(owner, tree.ends * tree.score, minlength=tree.size) / np.maximum(n, 1)
    square = np.bincount(owner, tree.ends * (tree.score - mean[owner]) ** 2, minlength=tree.size)
    std = np.sqrt(square / np.maximum(n - 1, 1))
    return mean[owner], std[owner]


def _by_prompt(tree: DrawTree) -> tuple[np.ndarray, np.ndarray]:
    return _by(tree, tree.root)


def _centred_value(tree: DrawTree) -> np.ndarray:
    """Returns the leaf means of returns less the mean of the prompt's other texts ``[D]``."""
    mean, _ = _by_prompt(tree)
    n = tree.texts[tree.root]
    return (tree.leaf_mean() - mean) * np.where(n > 1, n / np.maximum(n - 1, 1), 0.0)


def _sibling_spread(tree: DrawTree, value: np.ndarray) -> np.ndarray:
    """Returns the standard deviation (ddof 0) of the draws that each segment is one of ``[D]``."""
    inner = np.flatnonzero(tree.parent >= 0)
    above = tree.parent[inner]
    n = np.bincount(above, tree.times[inner], minlength=tree.size)
    mean = np.bincount(above, tree.times[inner] * value[inner], minlength=tree.size) / np.maximum(n, 1)
    square = np.bincount(above, tree.times[inner] * (value[inner] - mean[above]) ** 2, minlength=tree.size)
    spread = np.sqrt(square / np.maximum(n, 1))
    return np.where(tree.parent >= 0, spread[np.maximum(tree.parent, 0)], 0.0)


def _need_probabilities(tree: DrawTree) -> None:
    if np.isnan(tree.sure[tree.parent >= 0]).any():
        raise ConfigError("SPO-chain puts its cuts by the probabilities of tokens, and this tree does not have them")
