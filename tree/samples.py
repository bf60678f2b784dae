"""Trees with multiplicities: how often each edge was sampled, by whom and under which law.

A sampler is one model at one version that drew in one way; its record is in the header's ``samplers``, its counts are
a column of ``tree.sampled [N, S]``. Chains start at the prompt and are independent of each other. Forks start at nodes
that were picked by what a chain said there, so they are independent only given the node: how many began at a node is
how much oftener its children were drawn than it was itself. A text that was cut at its limit ends in a stopped node.

Letters: N nodes, R roots, S samplers, C chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numba
import numpy as np

from treegym.checks import number, one_of, whole
from treegym.errors import ConfigError, DataError
from treegym.tree.flags import END
from treegym.tree.token_tree import TokenTree
from treegym.tree.values import child_probabilities

__all__ = ["KINDS", "Leaves", "Sampler", "counts", "drawn", "fork_starts", "leaves", "require_samples", "samplers"]

KINDS = ("chains", "forks")


@dataclass(frozen=True)
class Sampler:
    """Who drew, and from which law."""

    model: str
    kind: str = "chains"  # whole texts from the prompt, independent; or "forks" from nodes that were picked
    fingerprint: str = ""
    version: str = "0"  # of the policy, as it is trained
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    seed: int = 0
    rule: str = ""  # where forks were put

    def __post_init__(self) -> None:
        one_of("a sampler's kind", self.kind, KINDS)
        number("temperature", self.temperature, low=0)
        number("top_p", self.top_p, low=0, high=1)
        whole("top_k", self.top_k, low=0)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def samplers(tree: TokenTree) -> list[Sampler]:
    """Returns the samplers of a tree, in the order of the columns of `sampled`; none where nobody sampled."""
    known = {field.name for field in fields(Sampler)}
    try:
        return [Sampler(**{k: v for k, v in entry.items() if k in known}) for entry in tree.header.get("samplers", ())]
    except (TypeError, ConfigError) as error:
        raise DataError(f"the tree's header describes its samplers wrongly: {error}") from error


def require_samples(tree: TokenTree, *, purpose: str) -> None:
    """Raises ConfigError for a tree that nobody sampled, such as a closed greedy one."""
    if not tree.has("sampled") or not tree.num_samplers or not tree.sampled.any():
        raise ConfigError(
            f"{purpose} needs a tree of samples, and this one holds none; grow one with `treegym grow --mode samples`, "
            "or draw from a closed tree with `treegym.tree.samples.drawn`"
        )


def counts(tree: TokenTree, *, kind: str | None = None, columns: Sequence[int] | None = None) -> np.ndarray:
    """Returns how often each node was drawn ``[N] int64``: by all samplers, those of a kind, or of some columns."""
    if columns is None:
        columns = [s for s, sampler in enumerate(samplers(tree)) if kind in (None, sampler.kind)]
    return tree.sampled[:, list(columns)].sum(axis=1, dtype=np.int64)


def fork_starts(tree: TokenTree, column: int) -> np.ndarray:
    """Returns how many draws of a sampler began at each node ``[N] int64``: below it they are independent."""
    drawn_here = tree.sampled[:, column].astype(np.int64)
    inner = np.flatnonzero(tree.parent >= 0)
    below = np.bincount(tree.parent[inner], drawn_here[inner], minlength=tree.size).astype(np.int64)
    return np.where(tree.child_count > 0, below - drawn_here, 0)


class Leaves(NamedTuple):
    """The texts that were drawn, root by root, those that share a beginning next to each other."""

    node: np.ndarray  # [L] int64
    root: np.ndarray  # [L] int64, index of the root
    times: np.ndarray  # [L] int64, how often each was drawn


def leaves(tree: TokenTree, drawn_here: np.ndarray) -> Leaves:
    """Returns the terminals that were drawn at least once, in the order of a walk that goes deep first.

    Args:
        tree: the tree.
        drawn_here: ``[N]`` how often each node was drawn.
    """
    order = _deep_first(tree.root_node.astype(np.int64), tree.first_child, tree.child_count)
    ends = order[((tree.flags[order] & END) != 0) & (drawn_here[order] > 0)]
    return Leaves(ends, tree.root_of(ends).astype(np.int64) if len(ends) else ends, drawn_here[ends].astype(np.int64))


def drawn(tree: TokenTree, policy: str | np.ndarray = "primary", *, samples: int, seed: int = 0) -> TokenTree:
    """Returns a closed tree with `samples` chains per prompt drawn from a policy over its children.

    The nodes are the same, and so the exact values are: what estimators make of the draws can be held against them.
    """
    whole("samples", samples, low=1)
    if not tree.is_closed:
        raise ConfigError("chains can be drawn from a closed tree only; this one has paths without an end")
    probability = child_probabilities(tree, policy)
    rng = np.random.default_rng(seed)
    made = _walks(tree.root_node.astype(np.int64), tree.first_child, tree.child_count, probability, samples, rng)
    name = policy if isinstance(policy, str) else "table"
    sampler = Sampler(name, seed=seed)
    logp = np.where(made > 0, np.log(np.maximum(probability, 1e-300)), np.nan)
    arrays = {name: tree.column(name) for name in tree.column_names if name not in ("sampled", "sampled_logp")}
    arrays |= {"sampled": made[:, None].astype(np.uint32), "sampled_logp": logp[:, None].astype(np.float32)}
    header = {**tree.header, "samplers": [sampler.to_dict()]}
    return TokenTree(arrays, header=header, root_node=tree.root_node, roots=tree.roots, size=tree.size)


@numba.njit(cache=True)
def _walks(roots: Any, first_child: Any, child_count: Any, probability: Any, samples: Any, rng: Any) -> Any:
    made = np.zeros(len(first_child), np.int64)
    for root in roots:
        for _ in range(samples):
            here = np.int64(root)
            while child_count[here] > 0:
                first, last = np.int64(first_child[here]), np.int64(first_child[here]) + child_count[here] - 1
                left = rng.random()
                here = first
                while here < last and left >= probability[here]:
                    left -= probability[here]
                    here += 1
                made[here] += 1
    return made


@numba.njit(cache=True)
def _deep_first(roots: Any, first_child: Any, child_count: Any) -> Any:
    order = np.empty(len(first_child), np.int64)
    stack = np.empty(len(first_child) + 1, np.int64)
    at = 0
    for root in roots:
        top = 1
        stack[0] = root
        while top > 0:
            top -= 1
            here = stack[top]
            order[at] = here
            at += 1
            for c in range(child_count[here] - 1, -1, -1):
                stack[top] = first_child[here] + c
                top += 1
    return order[:at]
