"""From several objectives to one number, for the multi-objective environments.

Letters: B rows, T objectives. Every objective is to be maximised; weights are at least 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from treegym.errors import ConfigError, suggest

__all__ = ["SCALARISERS", "linear", "product", "scalarise", "tchebycheff", "worst"]


def linear(vectors: np.ndarray, weights: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns sum_t w_t x_t. Reaches only points on the convex hull of the Pareto front."""
    return vectors @ weights


def tchebycheff(vectors: np.ndarray, weights: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns -(max_t w_t (z_t - x_t) + 0.05 sum_t w_t (z_t - x_t)), z the reference (ideal) point.

    The augmented weighted Tchebycheff distance (Steuer and Choo 1983): reaches every Pareto-optimal point for some
    weights, also on concave parts of the front; the small sum keeps weakly optimal points out.
    """
    gap = weights * (reference - vectors)
    return -(gap.max(axis=-1) + 0.05 * gap.sum(axis=-1))


def worst(vectors: np.ndarray, weights: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns min_t x_t over the objectives of weight above 0: only the worst one counts."""
    return vectors[..., weights > 0].min(axis=-1)


def product(vectors: np.ndarray, weights: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns prod_t max(x_t - z_t, 0)^w_t, z the reference (disagreement) point: Nash's bargaining product."""
    return np.prod(np.maximum(vectors - reference, 0.0) ** weights, axis=-1)


Scalariser = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
SCALARISERS: dict[str, Scalariser] = {
    "linear": linear,
    "product": product,
    "tchebycheff": tchebycheff,
    "worst": worst,
}


def scalarise(
    vectors: np.ndarray,
    *,
    method: str = "linear",
    weights: Sequence[float] | None = None,
    reference: Sequence[float] | None = None,
) -> np.ndarray:
    """Returns one number for each vector, ``[B] float64`` from ``[B, T]`` (or a scalar from ``[T]``).

    Args:
        vectors: the objectives, all to be maximised (turn costs around first).
        method: ``linear``, ``tchebycheff``, ``worst`` or ``product``.
        weights: one an objective, at least 0; equal and summing to 1 by default.
        reference: ideal point of ``tchebycheff`` (default ones) or disagreement point of ``product`` (default zeros).
    """
    values = np.asarray(vectors, dtype=np.float64)
    count = values.shape[-1]
    if method not in SCALARISERS:
        raise ConfigError(f"there is no scalariser called {method!r}.{suggest(method, SCALARISERS)}")
    share = np.full(count, 1.0 / count) if weights is None else np.asarray(weights, dtype=np.float64)
    default = 1.0 if method == "tchebycheff" else 0.0
    point = np.full(count, default) if reference is None else np.asarray(reference, dtype=np.float64)
    if share.shape != (count,) or point.shape != (count,):
        raise ConfigError(f"{count} objectives came with weights {share.shape} and a reference {point.shape}")
    if not np.isfinite(share).all() or (share < 0).any() or not share.any():
        raise ConfigError(f"the weights are {share.tolist()}; finite numbers of at least 0, not all 0, were expected")
    return SCALARISERS[method](values, share, point)
