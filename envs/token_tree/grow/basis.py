"""The 24 numbers a context is described by: principal components of its vector, as int8.

A prompt is described by the mean of its own contexts' vectors, in components of its own: the last vector alone knows
what comes next, not what kind of prompt it is, and an agent that is to learn whom to trust on which prompts needs that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treegym.envs.token_tree.grow.states import ContextStates, check_finite
from treegym.errors import DataError
from treegym.models.tree_scores import Branches
from treegym.tree.columns import CONTEXT_SIZE

__all__ = ["Components", "ContextBasis", "fit_basis", "principal_components"]

SPREAD = 4.0  # standard deviations that the int8 range covers; beyond, values are clipped


@dataclass(frozen=True)
class Components:
    """An affine map from vectors to 24 small integers, each component at unit variance where it was fitted."""

    mean: np.ndarray  # [D] float32
    axes: np.ndarray  # [24, D] float32, scaled so that one standard deviation becomes 127 / SPREAD

    def encode(self, hidden: np.ndarray) -> np.ndarray:
        """Returns ``[n, 24] int8`` of hidden states ``[n, D]``."""
        values = (hidden.astype(np.float32) - self.mean) @ self.axes.T
        return np.clip(np.rint(values), -127, 127).astype(np.int8)

    def to_header(self) -> dict[str, Any]:
        """Returns what a tree's header keeps."""
        return {
            "mean": [float(x) for x in self.mean],
            "axes": [[float(x) for x in row] for row in self.axes],
        }

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> Components:
        return checked(np.asarray(header["mean"], np.float32), np.asarray(header["axes"], np.float32))


def checked(mean: np.ndarray, axes: np.ndarray) -> Components:
    """Returns components from a file, or raises DataError."""
    whole = mean.ndim == 1 and axes.shape == (CONTEXT_SIZE, len(mean)) and mean.dtype == axes.dtype == np.float32
    if not whole or not (np.isfinite(mean).all() and np.isfinite(axes).all()):
        raise DataError("the components that describe contexts have other shapes than they should, or are not finite")
    return Components(mean, axes)


@dataclass(frozen=True)
class ContextBasis:
    """How prompts and the contexts below them are described."""

    contexts: Components
    prompts: Components

    def to_header(self) -> dict[str, Any]:
        """Returns what a tree's header keeps, so that a live tree and a refresh use the same components."""
        return {"contexts": self.contexts.to_header(), "prompts": self.prompts.to_header()}

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> ContextBasis:
        try:
            return cls(Components.from_header(header["contexts"]), Components.from_header(header["prompts"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the header's components that describe contexts are damaged ({error})") from error

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns what a file of arrays keeps."""
        parts = (("contexts", self.contexts), ("prompts", self.prompts))
        return {f"{name}.{field}": getattr(part, field) for name, part in parts for field in ("mean", "axes")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ContextBasis:
        try:
            contexts, prompts = (
                checked(np.array(arrays[f"{name}.mean"]), np.array(arrays[f"{name}.axes"]))
                for name in ("contexts", "prompts")
            )
        except KeyError as error:
            raise DataError(f"the components that describe contexts lack {error}; the file is damaged") from error
        return cls(contexts, prompts)


def fit_basis(states: ContextStates, prompts: Sequence[str], *, max_tokens: int) -> ContextBasis:
    """Fits the components on the contexts along the primary's own greedy answers to some prompts."""
    voice = states.voice
    contexts = [voice.begin(prompt) for prompt in prompts]
    answers = voice.model.generate(contexts, max_new_tokens=max_tokens)
    chains = [
        Branches(context, np.array(answer, np.int32), np.arange(-1, len(answer) - 1, dtype=np.int32))
        for context, answer in zip(contexts, answers, strict=True)
    ]
    vectors = np.concatenate(states.described(chains).vectors)
    check_finite(vectors, voice.name)
    return ContextBasis(
        principal_components(vectors.astype(np.float64)),
        principal_components(states.of_prompts(contexts).astype(np.float64)),
    )


def principal_components(hidden: np.ndarray) -> Components:
    """Returns the leading components of ``[m, D]`` states; what the data cannot fill is left at zero."""
    mean = hidden.mean(axis=0)
    covariance = (hidden - mean).T @ (hidden - mean) / max(len(hidden) - 1, 1)
    variances, vectors = np.linalg.eigh(covariance)  # ascending
    axes = np.zeros((CONTEXT_SIZE, hidden.shape[1]))
    count = min(CONTEXT_SIZE, hidden.shape[1])
    for row in range(count):
        variance, axis = variances[-1 - row], vectors[:, -1 - row]
        if variance <= 1e-9 * max(variances[-1], 1e-30):
            break
        axis = axis * np.sign(axis[np.abs(axis).argmax()])  # an eigenvector's sign is arbitrary: fix it
        axes[row] = axis / np.sqrt(variance) * (127.0 / SPREAD)
    return Components(mean.astype(np.float32), axes.astype(np.float32))
