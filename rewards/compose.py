"""Compositions of reward terms, and the `Reward` that stands at the top of them.

A term pays on entering a node. `Sum` adds; `Gate`, `Product` and `Lexicographic` work on whole returns: what their
parts earned along the path, paid at its end. `Sparse` moves what its part pays on the way to the end; the return is
equal.

What failed under ``on_error="mask"`` is not known (NaN), which is no 0: sums leave it out and are unknown themselves
only where nothing is left; a gate, a product or a lexicographic order with an unknown part is unknown as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from treegym.checks import whole
from treegym.errors import ConfigError
from treegym.rewards.base import Evaluated, Part, Term, number, weight_number
from treegym.rewards.table import Ends, RewardTable
from treegym.tree.token_tree import TokenTree

__all__ = [
    "AtEnd",
    "Gate",
    "GroupTerm",
    "Lexicographic",
    "Product",
    "Reward",
    "Sparse",
    "Sum",
    "group_bonus",
    "without_shaping",
]


class Sum(Part):
    """Adds weighted parts. A part of weight 0 is reported but never enters the sum."""

    def __init__(self, *parts: tuple[Part, float]) -> None:
        self.parts = tuple((part, weight_number(weight, "a weight of Sum")) for part, weight in parts)
        if not self.parts:
            raise ConfigError("Sum needs at least one part, such as {'verifier': 1.0}")
        self.pays_at_end = all(part.pays_at_end for part, _ in self.parts)

    def terms(self) -> list[Term]:
        return [term for part, _ in self.parts for term in part.terms()]

    def increments(self, table: Evaluated, nodes: np.ndarray) -> np.ndarray:
        counting = [(part, weight) for part, weight in self.parts if weight != 0.0]
        total = np.zeros(len(nodes))
        unknown = np.full(len(nodes), bool(counting))
        for part, weight in counting:
            paid = part.increments(table, nodes)
            lost = np.isnan(paid)
            total += weight * np.where(lost, 0.0, paid)
            unknown &= lost
        total[unknown] = np.nan
        return total

    def weights(self, outer: float) -> dict[str, float]:
        return {name: share for part, weight in self.parts for name, share in part.weights(outer * weight).items()}

    def spec(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for part, weight in self.parts:
            ((name, options),) = part.spec().items() if not isinstance(part, Sum) else [("sum", part.spec())]
            key, copy = name, 2
            while key in merged:  # a second gate or sum beside the first
                key, copy = f"{name}#{copy}", copy + 1
            if isinstance(part, Sum):
                merged[key] = {"of": options, "weight": weight}
            else:
                merged[key] = {**options, "weight": weight} if isinstance(options, dict) else weight
        return merged


class AtEnd(Part):
    """Base of the compositions that are paid at the end of a path."""

    pays_at_end = True
    name: str

    def increments(self, table: Evaluated, nodes: np.ndarray) -> np.ndarray:
        paid = np.zeros(len(nodes))
        at = np.nonzero(table.ends(nodes) | table.truncated(nodes))[0]
        if at.size:
            paid[at] = self.outcome(table, nodes[at])
        return paid

    def outcome(self, table: Evaluated, ends: np.ndarray) -> np.ndarray:
        """Returns what is paid at each end, ``[B] float64``."""
        raise NotImplementedError


class Sparse(AtEnd):
    """Pays at the end what its part earned along the path."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def terms(self) -> list[Term]:
        return self.part.terms()

    def outcome(self, table: Evaluated, ends: np.ndarray) -> np.ndarray:
        return table.returns(self.part, ends, leave_out=True)

    def weights(self, outer: float) -> dict[str, float]:
        return self.part.weights(outer)

    def spec(self) -> dict[str, Any]:
        return {"sparse": {"of": self.part.spec()}}


class Gate(AtEnd):
    """Pays `then` only where `by` reaches the threshold, and `otherwise` elsewhere: a hard check before a soft score.

    Behind a closed gate lazily evaluated terms (judges, plain functions) are not asked at all.
    """

    def __init__(self, by: Part, then: Part, *, threshold: float = 0.5, otherwise: float = 0.0) -> None:
        self.by, self.then = by, then
        self.threshold = number(threshold, "the threshold of Gate")
        self.otherwise = number(otherwise, "`otherwise` of Gate")

    def terms(self) -> list[Term]:
        return self.by.terms() + self.then.terms()

    def outcome(self, table: Evaluated, ends: np.ndarray) -> np.ndarray:
        measured = table.returns(self.by, ends)
        open_ = measured >= self.threshold
        table.skip(self.then, ends[~open_])
        paid = np.where(np.isnan(measured), np.nan, self.otherwise)
        if open_.any():
            table.unskip(self.then, ends[open_])  # it may have been closed before: annealed, or asked again
            paid[open_] = table.returns(self.then, ends[open_])
        return paid

    def weights(self, outer: float) -> dict[str, float]:
        return {**dict.fromkeys((t.name for t in self.by.terms()), outer), **self.then.weights(outer)}

    def spec(self) -> dict[str, Any]:
        options: dict[str, Any] = {"by": self.by.spec(), "then": self.then.spec()}
        return {"gate": {**options, "threshold": self.threshold, "otherwise": self.otherwise}}


class Product(AtEnd):
    """Multiplies the returns of its parts: all must be high for the whole to be."""

    def __init__(self, *parts: Part) -> None:
        self.parts = parts
        if not parts:
            raise ConfigError("Product needs at least one part, such as {'product': {'of': ['verifier', 'judge']}}")

    def terms(self) -> list[Term]:
        return [term for part in self.parts for term in part.terms()]

    def outcome(self, table: Evaluated, ends: np.ndarray) -> np.ndarray:
        return np.prod([table.returns(part, ends) for part in self.parts], axis=0)

    def spec(self) -> dict[str, Any]:
        return {"product": {"of": [part.spec() for part in self.parts]}}


class Lexicographic(AtEnd):
    """Lets an earlier part decide and a later one only break its ties.

    Each part's return is brought to u in [0, 1] by its range (an unbounded one by x / (1 + |x|)); all but the last are
    rounded down to `levels` + 1 steps; the outcome is the sum of u_i / (2 levels)^i. One step of part i is then worth
    more than all later parts together: 1 / levels > 1 / (2 levels - 1) >= sum of (2 levels)^-j over j >= 1, times 1.
    """

    def __init__(self, *parts: Part, levels: int = 10) -> None:
        if len(parts) < 2:
            raise ConfigError("Lexicographic needs at least two parts, the most important first")
        self.parts, self.levels = parts, whole("levels of Lexicographic", levels, low=1)

    def terms(self) -> list[Term]:
        return [term for part in self.parts for term in part.terms()]

    def outcome(self, table: Evaluated, ends: np.ndarray) -> np.ndarray:
        total = np.zeros(len(ends))
        for i, part in enumerate(self.parts):
            unit = _to_unit(table.returns(part, ends), part)
            if i < len(self.parts) - 1:
                unit = np.floor(unit * self.levels + 1e-9) / self.levels
            total += unit / (2.0 * self.levels) ** i
        return total

    def spec(self) -> dict[str, Any]:
        return {"lexicographic": {"of": [part.spec() for part in self.parts], "levels": self.levels}}


def _to_unit(returns: np.ndarray, part: Part) -> np.ndarray:
    bounds = part.bounds if isinstance(part, Term) and part.pays_at_end else None
    if bounds is None:
        return 0.5 + 0.5 * returns / (1.0 + np.abs(returns))
    return np.clip((returns - bounds[0]) / (bounds[1] - bounds[0]), 0.0, 1.0)


def is_shaping(part: Part) -> bool:
    """Returns whether a part is nothing but help for learning: terms that shape or are annealed away."""
    return all(term.shaping or term.anneal is not None for term in part.terms())


def without_shaping(part: Part) -> Part:
    """Returns the part without shaping and annealed terms: what evaluations report.

    In a sum they weigh 0; a product or an order goes without them; a gate that only shapes (or pays only shaping) and
    anything else made of them alone is worth 0.
    """
    if is_shaping(part):
        return Sum((part, 0.0))
    if isinstance(part, Sum):
        return Sum(*((without_shaping(inner), weight) for inner, weight in part.parts))
    if isinstance(part, Sparse):
        return Sparse(without_shaping(part.part))
    if isinstance(part, Gate):
        if is_shaping(part.by):
            return without_shaping(part.then)
        return Gate(
            without_shaping(part.by), without_shaping(part.then), threshold=part.threshold, otherwise=part.otherwise
        )
    if isinstance(part, (Product, Lexicographic)):
        kept = [without_shaping(inner) for inner in part.parts if not is_shaping(inner)]
        if isinstance(part, Product):
            return Product(*kept)
        return Lexicographic(*kept, levels=part.levels) if len(kept) > 1 else kept[0]
    return part


class Reward:
    """A composed reward, independent of any tree. `on` evaluates it on one."""

    def __init__(self, part: Part) -> None:
        self.part = part
        names = [term.name for term in part.terms()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"reward term {twice[0]!r} appears twice; give one a name of its own: "
                f'{{"other": {{"term": "{twice[0]}", "weight": 1.0}}}}'
            )
        self.names = tuple(names)

    @property
    def spec(self) -> dict[str, Any]:
        """The JSON form; `build(reward.spec)` makes an equal reward."""
        return self.part.spec()

    def to_json(self) -> str:
        """Returns the spec as JSON text."""
        return json.dumps(self.spec, allow_nan=False)

    def on(self, source: TokenTree, *, ends: Ends | None = None, truncated: Ends | None = None) -> RewardTable:
        """Evaluates the reward on a tree.

        Args:
            source: the tree.
            ends: which nodes end the episode, bool [N] or a function of nodes; the stored flags decide by default.
                Episode terms are evaluated there, whether the end is real or only detected.
            truncated: which nodes the budget cuts off; what is paid at the end is paid there too.
        """
        unshaped = without_shaping(self.part)
        return RewardTable(self.part, source, unshaped=unshaped, ends=ends, truncated=truncated)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reward) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        return f"Reward({self.spec})"


def sequence(parts: Any, what: str) -> Sequence[Any]:
    """Returns a non-empty list, or raises ConfigError."""
    if not isinstance(parts, (list, tuple)) or not parts:
        raise ConfigError(f"{what} is {parts!r}; a list of rewards was expected")
    return parts


@runtime_checkable
class GroupTerm(Protocol):
    """A term that scores paths by comparing them with their group."""

    name: str

    def group_values(self, paths: Sequence[Sequence[int]], groups: Sequence[Hashable]) -> np.ndarray:
        """Returns one value per path, ``[B] float32``."""
        ...


def group_bonus(reward: Reward, paths: Sequence[Sequence[int]], groups: Sequence[Hashable]) -> np.ndarray:
    """Returns what the group-scope terms of a reward add to the last step of each trajectory, ``[B] float32``.

    Args:
        reward: any reward; zeros come back when it has no group-scope terms.
        paths: token ids of each trajectory.
        groups: which group (root) each belongs to.
    """
    shares = reward.part.weights(1.0)
    bonus = np.zeros(len(paths), np.float32)
    for term in reward.part.terms():
        if term.scope == "group" and isinstance(term, GroupTerm) and shares[term.name] != 0.0:
            bonus += np.float32(shares[term.name]) * term.group_values(paths, groups)
    return bonus
