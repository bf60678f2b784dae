"""SB3's networks (`MlpPolicy`, `MultiInputPolicy`), with masks: weights can be exchanged with SB3 and MaskablePPO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import CombinedExtractor
from torch import nn

from treegym.agents.policies.base import ChildScorer, Observations

__all__ = ["MlpPolicy", "MultiInputPolicy"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class MlpPolicy(ChildScorer, ActorCriticPolicy):
    """SB3's actor-critic perceptron on a flat observation.

    Args:
        observation_space: a Box (or a Dict, through `MultiInputPolicy`).
        action_space: Discrete.
        lr_schedule: as SB3 passes it.
        activation: name of the activation function (a name, so that checkpoints can hold it).
        **kwargs: SB3's own, such as ``net_arch={"pi": [64, 64], "vf": [64, 64]}``.
    """

    plain_perceptron = True

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Any,
        *,
        activation: str = "tanh",
        **kwargs: Any,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        ActorCriticPolicy.__init__(
            self, observation_space, action_space, lr_schedule, activation_fn=ACTIVATIONS[activation], **kwargs
        )

    def logits(self, obs: Observations) -> torch.Tensor:
        return self.action_net(self.mlp_extractor.forward_actor(self._features(obs, self.pi_features_extractor)))

    def values(self, obs: Observations) -> torch.Tensor:
        latent = self.mlp_extractor.forward_critic(self._features(obs, self.vf_features_extractor))
        return self.value_net(latent).squeeze(-1)

    def both(self, obs: Observations) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.share_features_extractor:
            return self.logits(obs), self.values(obs)
        features = self._features(obs, self.features_extractor)
        latent_actor, latent_critic = self.mlp_extractor(features)
        return self.action_net(latent_actor), self.value_net(latent_critic).squeeze(-1)

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.mlp_extractor.value_net.parameters()
        yield from self.value_net.parameters()
        if not self.share_features_extractor:
            yield from self.vf_features_extractor.parameters()

    def _features(self, obs: Observations, extractor: nn.Module) -> torch.Tensor:
        whole = obs if isinstance(self.observation_space, spaces.Dict) else obs["observations"]
        return super(ActorCriticPolicy, self).extract_features(whole, extractor)


class MultiInputPolicy(MlpPolicy):
    """SB3's perceptron on a Dict observation: its parts are flattened and concatenated, the mask among them."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, lr_schedule: Any, **kwargs: Any):
        kwargs.setdefault("features_extractor_class", CombinedExtractor)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
