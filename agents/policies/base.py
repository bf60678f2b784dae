"""What an agent needs of a policy: logits of every child, a value, and how they are learned from.

Letters: B rows (states), K children, E episodes.

A policy is an SB3 `BasePolicy` (so it is a torch module that SB3's tools know) that mixes in `ChildScorer` and gives
`logits` and `values`. Everything random or masked is derived from those two here, in one place, so the mask is the
same in sampling, old and new log-probability, entropy and KL.

To add one: subclass ``ChildScorer, BasePolicy``, implement `logits` and `values`, and add a line to
`treegym.agents.policies.POLICIES`. Attributes that change how it is used:

- ``unit = "episode"``: learning batches hold whole episodes, their steps in order, and `episode_lengths` says where
  they end; a sequence model can then score an episode in one forward pass (`evaluate`). The default is ``"step"``.
- ``needs``: observation keys it reads; others are not stored.
- ``layout_needed``: whether it must be told the observation's layout.
- ``suits``: the switches that policy-gradient learners begin with, where their own defaults do not suit it.
- ``takes_memory``: whether its constructor takes ``memory=``, the size of what its critic reads under "memory".
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from treegym.agents.costs import JUDGING, Costs, counted
from treegym.agents.masking import MASK, choose, greedy, mask_of, masked_entropy, masked_log_softmax
from treegym.agents.processes import is_shard
from treegym.errors import ConfigError

__all__ = ["ChildScorer", "Judged", "Observations", "as_rows"]

Observations = Mapping[str, torch.Tensor]  # each [B, ...]; the key "observations" alone for a plain Box space
MEMORY = "memory"  # of the path behind a state; added to observations by those who know the state


class Judged(NamedTuple):
    """What learning needs to know of a batch of states and the children chosen there."""

    log_prob: torch.Tensor  # [B] float32
    entropy: torch.Tensor  # [B] float32
    value: torch.Tensor  # [B] float32
    logits: torch.Tensor  # [B, K] float32


def as_rows(observation: Any, space: spaces.Space) -> tuple[dict[str, np.ndarray], bool]:
    """Returns observations as a dict of ``[B, ...]`` arrays, and whether they came as a batch."""
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping):
            raise ValueError(
                f"predict expects a dict with the keys {', '.join(space.spaces)}, got {type(observation).__name__}; "
                "pass `obs`, not `(obs, info)`"
            )
        missing = [key for key in space.spaces if key not in observation]
        if missing:
            raise ValueError(f"the observation lacks the key {missing[0]!r}; it has {', '.join(map(str, observation))}")
        rows = {key: np.asarray(observation[key]) for key in space.spaces}
        shapes = {key: sub.shape for key, sub in space.spaces.items()}
    else:
        rows = {"observations": np.asarray(observation)}
        shapes = {"observations": space.shape}
    key = next(iter(rows))
    batched = rows[key].shape != shapes[key]
    if not batched:
        rows = {name: array[None] for name, array in rows.items()}
    for name, array in rows.items():
        if array.shape[1:] != shapes[name]:
            raise ValueError(
                f"observation {name!r} has shape {array.shape[1:]}, the policy was made for {shapes[name]}"
            )
    return rows, batched


class ChildScorer(nn.Module):
    """Turns `logits` and `values` into actions, log-probabilities and entropies."""

    unit: ClassVar[str] = "step"
    layout_needed: ClassVar[bool] = False
    takes_memory: ClassVar[bool] = False
    loads_models: ClassVar[bool] = False  # takes `local_files_only`, which forbids to ask a hub for a model
    suits: ClassVar[Mapping[str, Any]] = {}  # switches that policy-gradient learners take unless told otherwise
    plain_perceptron: ClassVar[bool] = False  # SB3's actor-critic perceptron and nothing else: may be learned by hand
    needs: tuple[str, ...] | None = None  # None: all of the observation

    observation_space: spaces.Space
    action_space: spaces.Discrete
    memory: int = 0  # size of the path's memory that the critic reads
    costs: Costs | None = None  # counts the states that are judged
    fast: Any = None  # set while a learner keeps a quicker forward pass of this very network

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes each way of judging states that a policy defines count them; it is no longer a `plain_perceptron`."""
        super().__init_subclass__(**kwargs)
        if not vars(cls).keys().isdisjoint(JUDGING):
            cls.plain_perceptron = vars(cls).get("plain_perceptron", False)
        for name in JUDGING:
            if name in vars(cls):
                setattr(cls, name, counted(vars(cls)[name]))

    def logits(self, obs: Observations) -> torch.Tensor:
        """Returns the unmasked logits ``[B, K] float32`` of the children of each state."""
        raise NotImplementedError

    def values(self, obs: Observations) -> torch.Tensor:
        """Returns the value ``[B] float32`` of each state."""
        raise NotImplementedError

    def episode_values(self, obs: Observations, episode_lengths: np.ndarray) -> torch.Tensor:
        """Returns `values` of the steps of whole episodes ``[E]``; overridden where one pass per episode gives them."""
        return self.values(obs)

    @counted
    def both(self, obs: Observations) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `logits` and `values`; overridden where they share work."""
        return self.logits(obs), self.values(obs)

    def child_values(self, obs: Observations) -> torch.Tensor:
        """Returns the return expected from choosing each child ``[B, K] float32``; planners judge ends by it.

        A policy without an opinion of its own gives every child the value of the state.
        """
        return self.values(obs)[:, None].expand(-1, int(self.action_space.n))

    @property
    def values_children(self) -> bool:
        """Whether `child_values` is an opinion of its own, which can be learned without moving the state's value."""
        return type(self).child_values is not ChildScorer.child_values

    def plainly(self) -> AbstractContextManager[None]:
        """Within it, whatever is computed by hand elsewhere is left to PyTorch."""
        return nullcontext()

    def count(self, states: int) -> None:
        """Counts states that were judged past this policy's own methods."""
        if self.costs is not None:
            self.costs.charge(passes=states)

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters that only the value depends on."""
        raise NotImplementedError

    def check_env(self, env: Any) -> None:
        """Raises ConfigError where an environment has the right spaces but does not suit this policy."""

    def frozen(self) -> ChildScorer:
        """Returns what the KL of learning is measured to: by default, a copy of the policy as it is now."""
        return copy.deepcopy(self)

    def make_optimizer(self, parameters: list[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
        """Returns the optimizer of learning, with AdamW's settings."""
        if any(
            is_shard(parameter) for parameter in parameters
        ):  # shards and whole tensors cannot be stepped in one call
            return torch.optim.AdamW(parameters, foreach=False, **settings)
        cpu = all(parameter.device.type == "cpu" for parameter in parameters)
        return torch.optim.AdamW(parameters, fused=cpu or None, **settings)

    def shard(self) -> None:
        """Puts weights in shards over several processes; only large networks are worth it."""
        raise ConfigError(f"{type(self).__name__} is small: launch without FSDP, every process then has a copy")

    def idle(self) -> None:
        """Does what a backward pass does together with the other processes, where this one has nothing to learn."""

    @counted
    def evaluate(
        self,
        obs: Observations,
        actions: torch.Tensor,
        *,
        with_value: bool = True,
        episode_lengths: np.ndarray | None = None,
    ) -> Judged:
        """Judges the chosen children, with gradients.

        Args:
            obs: the states acted in, each ``[B, ...]``.
            actions: ``[B] int64``.
            with_value: whether the value is needed; if not, zeros are returned.
            episode_lengths: ``[E] int64``, given when ``unit == "episode"``: the rows are those of E whole episodes.
        """
        if with_value:
            logits, value = self.both(obs)
        else:
            logits = self.logits(obs)
            value = torch.zeros(len(actions), device=logits.device)
        log_probs = masked_log_softmax(logits, obs.get(MASK))
        chosen = log_probs.gather(1, actions[:, None]).squeeze(1)
        return Judged(chosen, masked_entropy(log_probs), value, logits)

    @torch.no_grad()
    def act(
        self, rows: Mapping[str, np.ndarray], uniform: np.ndarray, *, with_value: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples a child for each row: actions ``[B] int64``, log-probabilities and values ``[B] float32``.

        Args:
            rows: observations, each ``[B, ...]``.
            uniform: ``[B] float64`` in [0, 1), the caller's randomness.
            with_value: whether the value is needed; if not, zeros are returned.
        """
        logits, values = self.infer(rows, with_value=with_value)
        actions, log_probs = choose(logits, mask_of(rows, logits.shape[1]), uniform)
        return actions, log_probs, values

    @counted
    @torch.no_grad()
    def infer(self, rows: Mapping[str, np.ndarray], *, with_value: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits ``[B, K]`` and values ``[B]`` (zeros if not asked for), both float32, without gradients."""
        if self.fast is not None:
            return self.fast.forward(self.fast.flatten(rows))
        obs = self.tensors(rows)
        if not with_value:
            logits = self.logits(obs)
            return logits.float().cpu().numpy(), np.zeros(len(logits), np.float32)
        logits, values = self.both(obs)
        return logits.float().cpu().numpy(), values.float().cpu().numpy()

    @counted
    @torch.no_grad()
    def judge(self, rows: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns logits ``[B, K]``, values ``[B]`` and values of the children ``[B, K]``, all float32."""
        obs = self.tensors(rows)
        logits, values = self.both(obs)
        return logits.cpu().numpy(), values.cpu().numpy(), self.child_values(obs).cpu().numpy()

    def best(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the likeliest legal child of each row ``[B] int64``."""
        logits, _ = self.infer(rows, with_value=False)
        return greedy(logits, mask_of(rows, logits.shape[1]))

    def tensors(self, rows: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Returns the rows as tensors on this policy's device."""
        device = next(self.parameters()).device
        return {key: torch.as_tensor(array, device=device) for key, array in rows.items()}

    def actor_parameters(self) -> list[nn.Parameter]:
        """Returns every parameter that is not the critic's alone."""
        critic = {id(parameter) for parameter in self.critic_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in critic]

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        """Answers SB3's own `BasePolicy.predict`; agents themselves call `best` and `act`."""
        obs = observation if isinstance(observation, Mapping) else {"observations": observation}
        log_probs = masked_log_softmax(self.logits(obs), obs.get(MASK))
        return log_probs.argmax(-1) if deterministic else torch.multinomial(log_probs.exp(), 1).squeeze(1)
