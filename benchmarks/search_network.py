"""The small network that every contestant of search_speed plans with: a latent world model, as in MuZero.

    h = relu(s W + U[a]);  s' = softsign(h V);  reward = h . r;  logits = s' P;  value = softsign(s' . v)

State 16, hidden 32: the same weights for all; no contestant gets a cheaper evaluator. A larger network brings every
ratio closer to 1, since all spend more of their time in it. The large one here has hidden 256 and another such layer
before anything is read off, h = relu(h D).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["HIDDEN", "LARGE", "STATE", "CompiledNetwork", "TorchNetwork", "Weights", "random_roots", "random_weights"]

STATE, HIDDEN = 16, 32
LARGE = {"hidden": 256, "deeper": 1}


class Weights(NamedTuple):
    """Weights for A actions, all float32."""

    w: np.ndarray  # [STATE, HIDDEN]
    v: np.ndarray  # [HIDDEN, STATE]
    r: np.ndarray  # [HIDDEN]
    value: np.ndarray  # [STATE]
    u: np.ndarray  # [A, HIDDEN]
    p: np.ndarray  # [STATE, A]
    d: np.ndarray  # [L, HIDDEN, HIDDEN], L more hidden layers

    def judge(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits [B, A] and value [B] of states [B, STATE]."""
        value = state @ self.value
        return state @ self.p, value / (1 + np.abs(value))

    def step(self, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns next states [B, STATE] and rewards [B]."""
        hidden = np.maximum(state @ self.w + self.u[action], 0)
        for layer in self.d:
            hidden = np.maximum(hidden @ layer, 0)
        after = hidden @ self.v
        after /= 1 + np.abs(after)
        return after, hidden @ self.r


def random_weights(actions: int, seed: int = 0, *, hidden: int = HIDDEN, deeper: int = 0) -> Weights:
    """Returns weights scaled so that states, rewards and values keep their size along a path."""
    thinner = (HIDDEN / hidden) ** 0.5
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> np.ndarray:
        return (rng.normal(size=shape) * scale).astype(np.float32)

    return Weights(
        w=normal(STATE, hidden, scale=0.5),
        u=normal(actions, hidden, scale=1.0),
        v=normal(hidden, STATE, scale=0.4 * thinner),
        r=normal(hidden, scale=0.08 * thinner),
        p=normal(STATE, actions, scale=0.7),
        value=normal(STATE, scale=0.7),
        d=normal(deeper, hidden, hidden, scale=(2 / hidden) ** 0.5),
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
        self._legal: dict[int, np.ndarray] = {}  # by batch: all of them, always
        self._ended: dict[int, np.ndarray] = {}
        self._room = 0
        if compiled:
            from search_network_kernel import network  # beside this file; compiles, so only when asked for

            hidden, deeper = weights.w.shape[1], len(weights.d)
            self.model: Any = network(self.num_actions, hidden, deeper)
            self.params = np.concatenate([part.ravel() for part in weights])
            self._room = hidden * (1 + deeper)

    def expand(self, states: np.ndarray) -> Any:
        """Judges a batch of states."""
        return self.judged(*self.weights.judge(states[:, :STATE] if self._room else states))

    def judged(self, logits: np.ndarray, value: np.ndarray) -> Any:
        """Returns a judgement by which everything is legal."""
        size = len(value)
        legal = self._legal.get(size)
        if legal is None:
            legal = self._legal[size] = np.ones((size, self.num_actions), np.bool_)
        return self._evaluation(logits, value, legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Any:
        """Steps a batch of states."""
        return self.ended(*self.weights.step(states[:, :STATE] if self._room else states, actions))

    def ended(self, after: np.ndarray, reward: np.ndarray) -> Any:
        """Returns a step by which nothing ends."""
        size = len(reward)
        ended = self._ended.get(size)
        if ended is None:
            ended = self._ended[size] = np.zeros(size, np.bool_)
        return self._transition(after, reward, ended)

    def roots(self, batch: int) -> np.ndarray:
        """Returns the root states; a compiled model's rows have room for the hidden layers too."""
        return np.pad(random_roots(batch), ((0, 0), (0, self._room)))


class TorchNetwork(CompiledNetwork):
    """The network as a simulator whose layers are a torch module, called as any other would be."""

    def __init__(self, weights: Weights) -> None:
        """Copies the weights into modules."""
        import torch

        super().__init__(weights, compiled=False)
        self._torch = torch
        self._judged: Any = None, None, None

        class Dynamics(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.w, self.u = parameter(weights.w.T), parameter(weights.u)
                self.d = torch.nn.ParameterList([parameter(layer.T) for layer in weights.d])
                self.out = parameter(np.concatenate([weights.v, weights.r[:, None]], 1).T)
                self.judge = parameter(np.concatenate([weights.p, weights.value[:, None]], 1).T)

            def forward(self, state: Any, action: Any) -> Any:
                linear = torch.nn.functional.linear
                hidden = torch.relu(linear(state, self.w) + self.u[action])
                for layer in self.d:
                    hidden = torch.relu(linear(hidden, layer))
                found = linear(hidden, self.out)
                after = torch.nn.functional.softsign(found[:, :STATE])
                judged = linear(after, self.judge)
                return after, found[:, STATE], judged[:, :-1], torch.nn.functional.softsign(judged[:, -1])

        def parameter(array: np.ndarray) -> Any:
            return torch.nn.Parameter(torch.from_numpy(np.ascontiguousarray(array)), requires_grad=False)

        self.module = Dynamics().eval()

    def step(self, states: np.ndarray, actions: np.ndarray) -> Any:
        """Steps a batch of states; what the module thinks of them is kept for `expand`, which is asked next."""
        torch = self._torch
        with torch.inference_mode():
            found = self.module(torch.from_numpy(states), torch.from_numpy(actions))
        after, reward, logits, value = (part.numpy() for part in found)
        self._judged = after, logits, value
        return self.ended(after, reward)

    def expand(self, states: np.ndarray) -> Any:
        """Judges a batch of states."""
        after, logits, value = self._judged
        if after is states:
            return self.judged(logits, value)
        return super().expand(states)
