"""The switches of every policy-gradient learner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treegym.agents.schedules import Schedule
from treegym.agents.settings import Settings
from treegym.errors import ConfigError

__all__ = ["OF_PAPERS", "GradientSettings"]

# What the papers on language models have in common: one pass over whole answers from their prompts on.
OF_PAPERS: Mapping[str, Any] = {
    "learning_rate": 1e-6, "n_epochs": 1, "batches": "episodes", "ent_coef": 0.0, "exploring_starts": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class GradientSettings(Settings):
    """Switches of every policy-gradient learner; names as in SB3 where SB3 has them."""

    n_episodes: int = 256  # whole episodes per rollout
    rollout_steps: int = 8192  # but no further episode begins once a rollout has taken so many steps
    exploring_starts: float = 0.0  # share of episodes (or groups) that begin at a random inner node of a closed tree
    n_steps: int | None = None  # steps per lane and rollout instead (SB3's way); episodes are cut and bootstrapped
    learning_rate: Schedule = 3e-4
    n_epochs: int = 4
    batch_size: int = 512  # steps per gradient step (episodes count by their steps)
    batches: str = "steps"  # what a gradient step is made of: shuffled steps, or whole episodes
    micro_batch: int | None = None  # steps per backward pass; gradients add up to the same
    clip_range: Schedule = 0.2  # how far below 1 the ratio may fall
    clip_range_high: float | None = None  # how far above; None: as far as below
    dual_clip: float | None = None
    aggregation: str = "token"  # how token losses become one: token, sample or constant
    horizon: int | None = None  # the constant of aggregation="constant"
    ent_coef: Schedule = 0.0
    vf_coef: float = 0.5
    clip_range_vf: float | None = None
    max_grad_norm: float | None = 0.5
    weight_decay: float = 0.0
    adam_eps: float = 1e-5  # as SB3's policies
    normalize_advantage: bool = True  # per minibatch
    kl_coef: float = 0.0  # beta, against the policy that learning started from
    kl_in: str = "reward"  # "reward": -beta KL_t is added to each reward; "loss": beta KL is added to the loss
    kl_estimator: str = "k1"
    kl_target: float | None = None  # adapt beta towards this KL per token
    kl_horizon: int = 10_000  # in steps
    target_kl: float | None = None  # stop an update's epochs early, as SB3 does
    fused: bool = True  # gradients of the loss by one compiled pass, and of plain perceptrons by hand

    def __post_init__(self) -> None:
        for name in ("n_episodes", "n_epochs", "batch_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}")
        if not 0.0 <= self.exploring_starts <= 1.0:
            raise ConfigError(f"exploring_starts must be between 0 and 1, got {self.exploring_starts!r}")
        if not 0.0 <= self.gamma <= 1.0:
            raise ConfigError(f"gamma must be between 0 and 1, got {self.gamma!r}")
        for name, choices in (
            ("aggregation", ("token", "sample", "constant")),
            ("batches", ("steps", "episodes")),
            ("kl_in", ("reward", "loss")),
            ("kl_estimator", ("k1", "k3")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.aggregation == "constant" and not self.horizon:
            raise ConfigError("aggregation='constant' needs horizon=, the longest possible episode")
        if self.dual_clip is not None and self.dual_clip <= 1.0:
            raise ConfigError(f"dual_clip must be above 1, got {self.dual_clip!r}")
