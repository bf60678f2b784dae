"""Reward zoning as a term: a path is in a zone by what is measured along it, and gets the zone's adjustment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from treegym.errors import ConfigError, suggest
from treegym.rewards.base import Request, Term
from treegym.rewards.compose import Reward
from treegym.rewards.spec import build
from treegym.rewards.table import RewardTable
from treegym.rewards.terms.zones import ZoneModel
from treegym.tree.paths import ancestors, path_sums
from treegym.tree.token_tree import TokenTree

__all__ = ["QUANTITIES", "Zoning", "measured"]

QUANTITIES = ("depth", "loglikelihood", "similarity", "teachers")  # known of every tree
MEASURABLE = (*QUANTITIES, "return")


def measured(
    source: TokenTree,
    nodes: np.ndarray,
    names: Sequence[str] = QUANTITIES,
    *,
    of: RewardTable | None = None,
) -> dict[str, np.ndarray]:
    """Returns what is known about the path to each node, ``[B] float64`` by name.

    ``depth``; ``loglikelihood``: the primary's, mean a token; ``similarity``: mean over the path; ``teachers``: mean
    number of models that proposed a token of the path; ``return``: what the reward `of` has paid so far. All but the
    last look at no verdict.
    """
    unknown = [name for name in names if name not in MEASURABLE]
    if unknown:
        raise ConfigError(f"zoning cannot measure {unknown[0]!r} on a tree.{suggest(unknown[0], MEASURABLE)}")
    if "return" in names and of is None:
        raise ConfigError("zoning by 'return' needs `of`: the reward whose return so far is measured")
    above = ancestors(source, nodes)
    depth = np.asarray(source.depth)[above].astype(np.int64)
    at = np.searchsorted(above, nodes)
    length = np.maximum(depth[at], 1)
    columns: dict[str, np.ndarray] = {}
    for name in names:
        if name == "depth":
            columns[name] = depth[at].astype(np.float64)
            continue
        if name == "return":
            assert of is not None
            of.ensure(above)
            columns[name] = path_sums(source, above, of.total[above])[at]
            continue
        if name == "loglikelihood":
            step = np.asarray(source.prior)[above].astype(np.float64)
        elif name == "similarity":
            step = np.nan_to_num(np.asarray(source.similarity)[above].astype(np.float64))
        else:
            bits = np.asarray(source.proposers)[above][:, None] >> np.arange(32, dtype=np.uint32)  # [., 32]
            step = (bits & 1).sum(axis=1).astype(np.float64)
        columns[name] = path_sums(source, above, step)[at] / length
    return columns


class Zoning(Term):
    """The adjustment of the zone that a path ends in, annealed away; evaluations report the reward without it.

    Args:
        model: a file written by ``ZoneModel.save``, or its JSON form.
        of: where the zones are cut by ``return``: the reward whose return so far counts.
        every_step: credit the adjustment on every step (a shaping of the way) instead of at the end.
    """

    kind = "zoning"
    shaping = True

    def __init__(
        self,
        *,
        model: str | Mapping[str, Any],
        of: Any = None,
        every_step: bool = False,
        anneal: Sequence[float] | None = (0.0, 1.0),
        **common: Any,
    ) -> None:
        super().__init__(anneal=anneal, **common)
        self.model = ZoneModel.load(model) if isinstance(model, str) else ZoneModel.from_dict(model)
        self.scope = "step" if every_step else "episode"
        others = [name for name in self.model.names if name not in MEASURABLE]
        if others:
            raise ConfigError(
                f"reward term {self.name!r}: its zoning was fitted with {others[0]!r}, "
                f"which cannot be measured on a tree.{suggest(others[0], MEASURABLE)}"
            )
        if ("return" in self.model.names) != (of is not None):
            raise ConfigError(f"reward term {self.name!r}: zones cut by 'return' and a reward `of` go together")
        self._of: Reward | None = None if of is None else build(of)
        self._table: RewardTable | None = None  # of the tree asked about last

    def values(self, source: TokenTree, asked: Request) -> np.ndarray:
        if self._of is not None and (self._table is None or self._table.source is not source):
            self._table = self._of.on(source)
        return self.model.adjustment(measured(source, asked.nodes, self.model.names, of=self._table))
