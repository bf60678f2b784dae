"""PPO: advantages by GAE against a learned critic (https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treegym.agents.advantages import gae, whiten
from treegym.agents.gradient_settings import GradientSettings
from treegym.agents.play.rollout import Trajectories
from treegym.agents.policy_gradient import PolicyGradient

__all__ = ["PPO", "PPOSettings"]


@dataclass(frozen=True)
class PPOSettings(GradientSettings):
    """PPO's switches beyond those all share."""

    gae_lambda: float = 0.95
    whiten_advantage: bool = False  # over the whole rollout instead of (or as well as) each minibatch


class PPO(PolicyGradient):
    """Proximal policy optimisation with masks; defaults as in SB3 where they have the same name.

    With ``n_steps=None`` (default) a rollout is `n_episodes` whole episodes; with a number, as many steps in every
    lane, cut at the edges, as SB3 does. Time limits are bootstrapped with the critic, terminals are not.
    """

    settings_class = PPOSettings
    settings: PPOSettings

    def weigh(self, rollout: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        advantages = gae(
            rollout.rewards,
            rollout.values,
            gamma=self.settings.gamma,
            lam=self.settings.gae_lambda,
            lengths=rollout.lengths,
            bootstrap=rollout.bootstrap,
            valid=rollout.valid,
        )
        targets = advantages + rollout.values
        return (whiten(advantages) if self.settings.whiten_advantage else advantages), targets
