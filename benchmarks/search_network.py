"""The small network that every contestant of search_speed plans with: a latent world model, as in MuZero.

    h = relu(s W + U[a]);  s' = softsign(h V);  reward = h . r;  logits = s' P;  value = softsign(s' . v)

State 16, hidden 32: the same weights for all; no contestant gets a cheaper evaluator. A larger network brings every
ratio closer to 1, since all spend more of their time in it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["HIDDEN", "STATE", "CompiledNetwork", "Weights", "random_roots", "random_weights"]

STATE, HIDDEN = 16, 32


class Weights(NamedTuple):
    """Weights for A actions, all float32."""

    w: np.ndarray  # [STATE, HIDDEN]
    v: np.ndarray  # [HIDDEN, STATE]
    r: np.ndarray  # [HIDDEN]
    value: np.ndarray  # [STATE]
    u: np.ndarray  # [A, HIDDEN]
    p: np.ndarray  # [STATE, A]

    def judge(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits [B, A] and value [B] of states [B, STATE]."""
        value = state @ self.value
        return state @ self.p, value / (1 + np.abs(value))

    def step(self, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns next states [B, STATE] and rewards [B]."""
        hidden = np.maximum(state @ self.w + self.u[action], 0)
        after = hidden @ self.v
        after /= 1 + np.abs(after)
        return after, hidden @ self.r


def random_weights(actions: int, seed: int = 0) -> Weights:
    """Returns weights scaled so that states, rewards and values keep their size along a path."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> np.ndarray:
        return (rng.normal(size=shape) * scale).astype(np.float32)

    return Weights(
        w=normal(STATE, HIDDEN, scale=0.5),
        u=normal(actions, HIDDEN, scale=1.0),
        v=normal(HIDDEN, STATE, scale=0.4),
        r=normal(HIDDEN, scale=0.08),
        p=normal(STATE, actions, scale=0.7),
        value=normal(STATE, scale=0.7),
    )


def random_roots(batch: int, seed: int = 1) -> np.ndarray:
    """Returns root states, float32 [B, STATE]."""
    return np.random.default_rng(seed).uniform(-0.8, 0.8, size=(batch, STATE)).astype(np.float32)


class CompiledNetwork:
    """The network as a simulator with a compiled model."""

    def __init__(self, weights: Weights, *, compiled: bool = True) -> None:
        """Flattens the weights; with ``compiled=False`` only the NumPy side is offered."""
        from treegym.search import Evaluation, Transition  # not there under the peers' interpreter

        self._evaluation, self._transition = Evaluation, Transition
        self.weights = weights
        self.num_actions = weights.p.shape[1]
        if compiled:
            from search_network_kernel import network  # beside this file; compiles, so only when asked for

            self.model: Any = network(self.num_actions)
            self.params = np.concatenate([part.ravel() for part in weights])

    def expand(self, states: np.ndarray) -> Any:
        """Judges a batch of states."""
        logits, value = self.weights.judge(states[:, :STATE])
        return self._evaluation(logits, value, np.ones(logits.shape, np.bool_))

    def step(self, states: np.ndarray, actions: np.ndarray) -> Any:
        """Steps a batch of states."""
        after, reward = self.weights.step(states[:, :STATE], actions)
        return self._transition(after, reward, np.zeros(len(after), np.bool_))

    def roots(self, batch: int) -> np.ndarray:
        """Returns the root states; a compiled model's rows have room for the hidden layer too."""
        states = random_roots(batch)
        return np.pad(states, ((0, 0), (0, HIDDEN))) if hasattr(self, "model") else states
