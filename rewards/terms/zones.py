"""Reward zoning (ORZ, optimised reward zoning): states are binned by measured quantities, each zone adjusts the reward.

Letters: E examples, Q measured quantities, B rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write
from treegym.untrusted import read_json

__all__ = ["ZoneModel"]


@dataclass(frozen=True)
class ZoneModel:
    """Zones of a grid over measured quantities, and what each adds to the reward.

    The adjustment of zone z is the shrunk deviation of its mean outcome from the overall mean,
    ``a_z = n_z / (n_z + k) * (mean_z - mean)``, the posterior mean of a normal model in which k examples' worth of
    prior say that zones do not differ. A zone never seen adjusts nothing, and so does anything not finite.

    The adjustment goes *beside* the reward: it is annealed, logged apart, and evaluations report the raw reward only.
    """

    names: tuple[str, ...]  # the Q measured quantities
    edges: tuple[tuple[float, ...], ...]  # Q rising lists of inner bin edges
    adjustments: np.ndarray  # [zones] float64, zones in row-major order of the bins
    counts: np.ndarray  # [zones] int64, examples seen in each

    @classmethod
    def fit(
        cls,
        quantities: Mapping[str, np.ndarray],
        outcomes: np.ndarray,
        *,
        bins: int = 4,
        prior: float = 10.0,
    ) -> ZoneModel:
        """Fits zones to outcomes.

        Args:
            quantities: measured values ``[E]`` by name, such as depth, return so far, accuracy.
            outcomes: ``[E]`` what the reward was worth in the end (the return from there on).
            bins: bins a quantity, cut at its quantiles; equal quantiles merge.
            prior: k, how many examples a zone needs until half of its deviation is believed.
        """
        target = np.asarray(outcomes, dtype=np.float64)
        if not quantities or not len(target):
            raise ConfigError("zoning needs at least one measured quantity and one example")
        if not np.isfinite(target).all():
            raise ConfigError("zoning was given outcomes that are not finite")
        if bins < 1 or not prior > 0:
            raise ConfigError(f"bins is {bins} and prior {prior}; at least 1 bin and a prior above 0 were expected")
        columns = {name: np.asarray(values, dtype=np.float64) for name, values in quantities.items()}
        for name, values in columns.items():
            if values.shape != target.shape:
                raise ConfigError(f"zoning: {name!r} has shape {values.shape}, the outcomes {target.shape}")
        edges = tuple(_edges(values, bins) for values in columns.values())
        zones = _zones(list(columns.values()), edges)
        seen = zones >= 0
        size = int(np.prod([len(inner) + 1 for inner in edges]))
        counts = np.bincount(zones[seen], minlength=size)
        sums = np.bincount(zones[seen], weights=target[seen], minlength=size)
        deviation = sums / np.maximum(counts, 1) - target[seen].mean() if seen.any() else np.zeros(size)
        return cls(tuple(columns), edges, counts / (counts + prior) * np.where(counts > 0, deviation, 0.0), counts)

    def zone(self, quantities: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the zone of each row, ``[B] int64``; -1 where a quantity is not finite."""
        absent = [name for name in self.names if name not in quantities]
        if absent:
            raise ConfigError(f"zoning was fitted with {', '.join(self.names)}; {absent[0]!r} did not come")
        return _zones([np.asarray(quantities[name], dtype=np.float64) for name in self.names], self.edges)

    def adjustment(self, quantities: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns what to add to each row's reward, ``[B] float64``."""
        zones = self.zone(quantities)
        return np.where(zones >= 0, self.adjustments[zones], 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        edges = [list(inner) for inner in self.edges]
        table = {"names": list(self.names), "edges": edges, "adjustments": self.adjustments.tolist()}
        return {"kind": "treegym zoning", "version": 1, **table, "counts": self.counts.tolist()}

    @classmethod
    def from_dict(cls, content: Any, *, where: str = "zoning") -> ZoneModel:
        """Reads the JSON form, or raises DataError."""
        try:
            if content["kind"] != "treegym zoning" or content["version"] != 1:
                raise ValueError("another kind or version")
            names = tuple(str(name) for name in content["names"])
            edges = tuple(tuple(float(edge) for edge in inner) for inner in content["edges"])
            adjustments = np.array(content["adjustments"], dtype=np.float64)
            counts = np.array(content["counts"], dtype=np.int64)
            size = math.prod(len(inner) + 1 for inner in edges)
            rising = all(list(inner) == sorted(set(inner)) for inner in edges)
            if len(names) != len(edges) or adjustments.shape != (size,) or counts.shape != (size,) or not rising:
                raise ValueError("its parts do not fit each other")
            numbers = [*adjustments.tolist(), *(edge for inner in edges for edge in inner)]
            if not all(map(math.isfinite, numbers)) or counts.min(initial=0) < 0:
                raise ValueError("an adjustment or an edge is not finite, or a count is negative")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{where}: not a fitted zoning ({error}); write one with ZoneModel.save") from error
        return cls(names, edges, adjustments, counts)

    def save(self, path: str | Path) -> None:
        """Writes the model as JSON."""
        atomic_write(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> ZoneModel:
        """Reads a model written by `save`."""
        return cls.from_dict(read_json(path), where=str(path))


def _edges(values: np.ndarray, bins: int) -> tuple[float, ...]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return ()
    inner = np.quantile(finite, np.linspace(0.0, 1.0, bins + 1)[1:-1])
    return tuple(float(edge) for edge in np.unique(inner) if finite.min() < edge <= finite.max())


def _zones(columns: Sequence[np.ndarray], edges: Sequence[Sequence[float]]) -> np.ndarray:
    zones = np.zeros(columns[0].shape, dtype=np.int64)
    finite = np.ones(columns[0].shape, dtype=bool)
    for values, inner in zip(columns, edges, strict=True):
        finite &= np.isfinite(values)
        zones = zones * (len(inner) + 1) + np.searchsorted(np.asarray(inner), values, side="right")
    return np.where(finite, zones, -1)
