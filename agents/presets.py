"""Relatives of PPO and DAPO: the same code with other switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from treegym.agents.advantages import discounted_returns, whiten
from treegym.agents.dapo import DAPO, DAPOSettings
from treegym.agents.gradient_settings import OF_PAPERS, GradientSettings
from treegym.agents.play.rollout import Trajectories
from treegym.agents.policy_gradient import PolicyGradient
from treegym.agents.ppo import PPO, PPOSettings

__all__ = ["GRPO", "ORZPPO", "RLOO", "DrGRPO", "ReinforcePlusPlus"]


@dataclass(frozen=True)
class GRPOSettings(DAPOSettings):
    """Group-relative policy optimisation (https://arxiv.org/abs/2402.03300): beta KL in the loss, sample means."""

    clip_range_high: float | None = None
    dual_clip: float | None = None
    dynamic_sampling: bool = False
    overlong_penalty: bool = False
    aggregation: str = "sample"
    kl_coef: float = 0.04
    kl_in: str = "loss"
    kl_estimator: str = "k3"


class GRPO(DAPO):
    """GRPO: what DAPO started from."""

    settings_class = GRPOSettings
    papers: ClassVar[Mapping[str, Any]] = {**OF_PAPERS, "n_episodes": 1024, "group_size": 64, "rollout_steps": 2**30}


@dataclass(frozen=True)
class DrGRPOSettings(GRPOSettings):
    """GRPO "done right" (https://arxiv.org/abs/2503.20783): no division by spread or by length."""

    advantage: str = "centred"
    aggregation: str = "constant"
    horizon: int | None = 48  # the token budget of TokenTree-v0
    kl_coef: float = 0.0


class DrGRPO(DAPO):
    """Dr. GRPO: unbiased in length and difficulty."""

    settings_class = DrGRPOSettings


@dataclass(frozen=True)
class RLOOSettings(DAPOSettings):
    """REINFORCE leave-one-out (https://arxiv.org/abs/2402.14740): the others' mean is the baseline."""

    advantage: str = "leave_one_out"
    clip_range_high: float | None = None
    dual_clip: float | None = None
    dynamic_sampling: bool = False
    overlong_penalty: bool = False
    n_epochs: int = 1


class RLOO(DAPO):
    """RLOO. In one pass over a rollout (`RLOO.paper`) the ratio stays near 1 and the clip hardly acts."""

    settings_class = RLOOSettings
    papers: ClassVar[Mapping[str, Any]] = OF_PAPERS


@dataclass(frozen=True)
class ReinforceSettings(GradientSettings):
    """REINFORCE++ (https://arxiv.org/abs/2501.03262): returns to go, whitened over the batch, KL in the reward."""

    gamma: float = 1.0
    normalize_advantage: bool = False
    kl_coef: float = 0.01


class ReinforcePlusPlus(PolicyGradient):
    """REINFORCE++: no critic and no groups."""

    settings_class = ReinforceSettings
    uses_critic: ClassVar[bool] = False

    def weigh(self, rollout: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        returns = discounted_returns(
            rollout.rewards, gamma=self.settings.gamma, lengths=rollout.lengths, valid=rollout.valid
        )
        return whiten(returns), np.zeros(rollout.steps, np.float32)


@dataclass(frozen=True)
class ORZSettings(PPOSettings):
    """Open-Reasoner-Zero's PPO (https://arxiv.org/abs/2503.24290): gamma = lambda = 1, no KL."""

    gamma: float = 1.0
    gae_lambda: float = 1.0


class ORZPPO(PPO):
    """PPO with Monte-Carlo advantages against the critic."""

    settings_class = ORZSettings
