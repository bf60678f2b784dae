"""What replaces hidden states where a server or engine gives none: the distribution itself, as a vector.

The logits are a linear image of the last hidden state h, z = W h, and the log-probabilities z minus one number;
centring them over the vocabulary takes that number away again. So W h, centred, can be had from any back end that
tells all log-probabilities. Long vectors are folded by a fixed random projection, which nearly keeps their angles
(Charikar, Chen and Farach-Colton 2002, https://doi.org/10.1007/3-540-45465-9_59).
"""

from __future__ import annotations

import numpy as np

__all__ = ["logprob_states"]

LONGEST = 512
LOWEST = -40.0  # a probability of nothing would drown all others


def logprob_states(logprobs: np.ndarray) -> np.ndarray:
    """Returns ``[B, min(V, 512)] float32`` states of log-probabilities ``[B, V]``."""
    bounded = np.maximum(logprobs.astype(np.float32), LOWEST)
    centred = bounded - bounded.mean(axis=1, keepdims=True)
    size = centred.shape[1]
    if size <= LONGEST:
        return centred
    generator = np.random.default_rng(size)  # equal for equal vocabularies
    # Every coordinate is added, with a random sign, to one of the 512: a sparse projection (a count sketch).
    bucket, sign = generator.integers(0, LONGEST, size), generator.choice(np.array([-1.0, 1.0], np.float32), size)
    states = np.zeros((LONGEST, len(centred)), np.float32)
    np.add.at(states, bucket, (centred * sign).T)
    return states.T.copy()
