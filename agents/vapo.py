"""VAPO: a pretrained critic, decoupled and length-adaptive GAE, and imitation of what was right.

https://arxiv.org/abs/2504.05118
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from treegym.agents.advantages import discounted_returns, gae, lambda_for_length
from treegym.agents.dapo import GroupSampling, GroupSettings
from treegym.agents.gradient_settings import OF_PAPERS
from treegym.agents.lesson import NOTHING, Lesson
from treegym.agents.play.rollout import Trajectories
from treegym.agents.schema import check_json
from treegym.agents.state import optimizer_state, set_optimizer_state, within
from treegym.errors import ConfigError
from treegym.shape import COUNT

__all__ = ["VAPO", "VAPOSettings", "explained_variance"]


@dataclass(frozen=True)
class VAPOSettings(GroupSettings):
    """VAPO's switches; `VAPO.paper` sets them as the paper does."""

    gamma: float = 1.0
    clip_range_high: float | None = 0.28
    group_sampling: bool = True
    value_pretraining: bool = True
    pretrain_updates: int = 50  # gradient steps of the critic alone, on returns of the fixed first policy
    pretrain_variance: float = 0.9  # stop earlier when it explains this share of the returns' variance
    decoupled: bool = True  # critic targets with lambda_critic, advantages with the policy's lambda
    lambda_critic: float = 1.0
    length_adaptive: bool = True  # the policy's lambda is 1 - 1/(alpha l); off: gae_lambda
    alpha: float = 1.0  # the paper's 0.05 is for answers of thousands of tokens: up to 20 steps it gives lambda 0
    lambda_min: float = 0.0
    gae_lambda: float = 0.95
    nll_weight: float = 0.1  # of the likelihood of correct episodes; 0: off

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha <= 0:
            raise ConfigError(f"alpha must be above 0, got {self.alpha!r}")
        if not 0.0 <= self.lambda_min <= 1.0:
            raise ConfigError(f"lambda_min must be between 0 and 1, got {self.lambda_min!r}")


class VAPO(GroupSampling):
    """Value-augmented proximal policy optimisation.

    Before the policy learns, the critic is fitted to Monte-Carlo returns of the first policy, which stays bit-identical
    meanwhile; the steps that takes count against the budget.
    """

    settings_class = VAPOSettings
    settings: VAPOSettings
    uses_critic: ClassVar[bool] = True
    papers: ClassVar[Mapping[str, Any]] = {
        **OF_PAPERS, "n_episodes": 8192, "group_size": 16, "alpha": 0.05, "normalize_advantage": False,
        "rollout_steps": 2**30,
    }  # fmt: skip

    def _setup_learning(self) -> None:
        super()._setup_learning()
        self.pretrained = 0  # gradient steps of the critic alone so far; -1: finished
        if not self.settings.value_pretraining:
            self.pretrained = -1
        self.critic_optimizer = torch.optim.AdamW(
            list(self.scorer.critic_parameters()),
            lr=self.lr_schedule(1.0),
            eps=self.settings.adam_eps,
            weight_decay=0.0,
        )

    def collect(self, callback: Any) -> Trajectories:
        if self.settings.group_sampling:
            return super().collect(callback)
        collector = self.collector(callback)
        rollout = collector.episodes(self.settings.n_episodes, enough=self.enough_steps())
        self.note_episodes(collector, rollout)
        return rollout

    def weigh(self, rollout: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        s = self.settings
        rewards = rollout.rewards.astype(np.float64)
        rewards[rollout.starts + rollout.lengths - 1] += self.punishment(rollout)  # it comes at the end
        lam: Any = s.gae_lambda
        if s.length_adaptive:
            lam = lambda_for_length(rollout.lengths, alpha=s.alpha, lambda_min=s.lambda_min)
        common: dict[str, Any] = {
            "gamma": s.gamma, "lengths": rollout.lengths, "bootstrap": rollout.bootstrap, "valid": rollout.valid,
        }  # fmt: skip
        advantages = gae(rewards, rollout.values, lam=lam, **common)
        targets = gae(rewards, rollout.values, lam=s.lambda_critic, **common) if s.decoupled else advantages
        return advantages, targets + rollout.values

    def nll_coef(self) -> float:
        return self.settings.nll_weight

    def update(self, rollout: Trajectories) -> None:
        if self.pretrained >= 0:
            self.pretrain(rollout)
        else:
            super().update(rollout)

    def pretrain(self, rollout: Trajectories) -> None:
        """Takes gradient steps of the critic towards the returns of this rollout."""
        s = self.settings
        targets = discounted_returns(
            rollout.rewards, gamma=s.gamma, lengths=rollout.lengths, bootstrap=rollout.bootstrap, valid=rollout.valid
        )
        lesson = self.lesson(rollout)._replace(targets=targets[rollout.valid])
        explained = 0.0
        recent: deque[float] = deque(maxlen=8)  # one minibatch is a noisy estimate
        for _ in range(s.n_epochs):
            for batch in self.processes.in_step(self.minibatches(lesson)):
                index, lengths = NOTHING if batch is None else batch
                part = lesson.part(index)._replace(lengths=lengths)
                recent.append(self._critic_step(part))
                explained = float(np.mean(recent))
                self.pretrained += 1
                if self.pretrained >= s.pretrain_updates or (len(recent) == 8 and explained >= s.pretrain_variance):
                    self.pretrained = -1
                    break
            if self.pretrained < 0:
                break
        self.logger.record("train/value_explained", explained)

    def _critic_step(self, part: Lesson) -> float:
        """Takes one step and returns the share of the returns' variance that the critic explained before it."""
        policy = self.scorer
        share = len(part.actions) / self.processes.totals(len(part.actions))[0]
        self.critic_optimizer.zero_grad(set_to_none=True)
        explained = 0.0
        if share:
            values = policy.episode_values(policy.tensors(part.rows), part.lengths)
            targets = torch.as_tensor(part.targets, device=values.device)
            (((values - targets) ** 2).mean() * share).backward()
            explained = explained_variance(values.detach().cpu().numpy(), part.targets)
        self.processes.sum_gradients(self.critic_optimizer.param_groups[0]["params"])
        self.critic_optimizer.step()
        return self.processes.totals(explained * share)[0]

    def training_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        values, arrays = super().training_state()
        critic, moments = optimizer_state(self.critic_optimizer)
        values |= {"pretrained": self.pretrained, "critic_optimizer": critic}
        return values, arrays | {f"critic_optimizer.{key}": array for key, array in moments.items()}

    def set_training_state(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().set_training_state(values, arrays)
        check_json(values, {"pretrained": lambda value: value == -1 or COUNT(value), "critic_optimizer": {}}, "state")
        self.pretrained = values["pretrained"]
        moments = within(arrays, "critic_optimizer.")
        set_optimizer_state(self.critic_optimizer, values["critic_optimizer"], moments, "critic_optimizer")


def explained_variance(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Returns 1 - Var(actual - predicted) / Var(actual), or 0 where nothing varies."""
    spread = float(np.var(actual))
    return 0.0 if spread < 1e-12 else 1.0 - float(np.var(actual - predicted)) / spread
