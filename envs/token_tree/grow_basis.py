"""The 24 numbers a node's context is described by: principal components of its vector, as int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treegym.envs.token_tree.columns import CONTEXT_SIZE
from treegym.envs.token_tree.grow_states import ContextStates
from treegym.models.tree_scores import Branches

__all__ = ["ContextBasis", "fit_basis"]

SPREAD = 4.0  # standard deviations that the int8 range covers; beyond, values are clipped


@dataclass(frozen=True)
class ContextBasis:
    """An affine map from hidden states to 24 small integers, each component at unit variance where it was fitted."""

    mean: np.ndarray  # [D] float32
    axes: np.ndarray  # [24, D] float32, scaled so that one standard deviation becomes 127 / SPREAD

    def encode(self, hidden: np.ndarray) -> np.ndarray:
        """Returns ``[n, 24] int8`` of hidden states ``[n, D]``."""
        values = (hidden.astype(np.float32) - self.mean) @ self.axes.T
        return np.clip(np.rint(values), -127, 127).astype(np.int8)

    def to_header(self) -> dict[str, Any]:
        """Returns what a tree's header keeps, so that a live tree and a refresh use the same components."""
        return {
            "mean": [float(x) for x in self.mean],
            "axes": [[float(x) for x in row] for row in self.axes],
        }

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> ContextBasis:
        return cls(np.asarray(header["mean"], np.float32), np.asarray(header["axes"], np.float32))


def fit_basis(states: ContextStates, prompts: Sequence[str], *, max_tokens: int) -> ContextBasis:
    """Fits the components on the contexts along the primary's own greedy answers to some prompts."""
    voice = states.voice
    contexts = [voice.begin(prompt) for prompt in prompts]
    answers = voice.model.generate(contexts, max_new_tokens=max_tokens)
    chains = [
        Branches(context, np.array(answer, np.int32), np.arange(-1, len(answer) - 1, dtype=np.int32))
        for context, answer in zip(contexts, answers, strict=True)
    ]
    _, vectors = states.scored(chains)
    return principal_components(np.concatenate(vectors).astype(np.float64))


def principal_components(hidden: np.ndarray) -> ContextBasis:
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
    return ContextBasis(mean.astype(np.float32), axes.astype(np.float32))
