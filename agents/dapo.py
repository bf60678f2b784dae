"""DAPO: groups instead of a critic, clip-higher, dynamic sampling, token loss (https://arxiv.org/abs/2503.14476)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from treegym.agents.gradient_settings import OF_PAPERS, GradientSettings
from treegym.agents.groups import (
    group_centred,
    group_leave_one_out,
    group_normalised,
    informative_groups,
    soft_overlong,
)
from treegym.agents.play.rollout import Collector, Trajectories, join
from treegym.agents.policy_gradient import PolicyGradient
from treegym.agents.tree_advantages import ESTIMATORS, step_advantages
from treegym.errors import ConfigError

__all__ = ["DAPO", "DAPOSettings", "GroupSampling", "GroupSettings"]


@dataclass(frozen=True)
class GroupSettings(GradientSettings):
    """Switches of every learner that samples groups."""

    group_size: int = 4  # episodes from one root (the papers: 16); many roots per rollout matter more on small trees
    overlong_penalty: bool = True  # soft punishment; needs overlong_max
    overlong_max: int | None = None  # L_max; None: no punishment
    overlong_cache: int | None = None  # L_c; None: a fifth of L_max
    overlong_filter: bool = False  # leave truncated episodes out of the loss

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise ConfigError(f"group_size must be at least 2, got {self.group_size}: one episode has no group mean")
        if self.n_steps is not None:
            raise ConfigError("groups are made of whole episodes; n_steps must be None")


class GroupSampling(PolicyGradient):
    """Collects groups of episodes that start at the same root."""

    settings: GroupSettings

    def collect(self, callback: BaseCallback) -> Trajectories:
        collector = self.collector(callback)
        count = max(1, self.settings.n_episodes // self.settings.group_size)
        rollout = self.sample_groups(collector, count, 0)
        self.note_episodes(collector, rollout)
        return rollout

    def sample_groups(self, collector: Collector, count: int, first_group: int) -> Trajectories:
        """Returns `count` groups of `group_size` episodes, their roots drawn at random.

        Where an environment cannot be reset to a root, the episodes of a group begin with the same seed: alike, and
        where the environment itself draws, with the same draws.
        """
        assert self.world is not None
        size = self.settings.group_size
        roots = self.world.roots()
        starts: dict[str, np.ndarray] = {}
        if roots is None:
            starts["seeds"] = np.repeat(self.rng.integers(2**31, size=count), size)
        else:
            starts["roots"] = np.repeat(self.rng.choice(roots, size=count, replace=count > len(roots)), size)
        groups = np.repeat(np.arange(first_group, first_group + count), size)
        return collector.episodes(len(groups), groups=groups, group_size=size, enough=self.enough_steps(), **starts)

    def punishment(self, rollout: Trajectories) -> np.ndarray:
        """Returns what each episode's return is lowered by for its length, ``[E] float32``, at most 0."""
        s = self.settings
        if not s.overlong_penalty or s.overlong_max is None:
            return np.zeros(rollout.episodes, np.float32)
        cache = s.overlong_cache or max(1, s.overlong_max // 5)
        return soft_overlong(rollout.lengths, max_length=s.overlong_max, cache=cache)

    def filtered(self, rollout: Trajectories) -> Trajectories:
        """Returns the rollout with nothing to learn from truncated episodes, if so set."""
        if not self.settings.overlong_filter:
            return rollout
        return rollout.with_(valid=rollout.valid & ~np.repeat(rollout.truncated, rollout.lengths))

    def update(self, rollout: Trajectories) -> None:
        super().update(self.filtered(rollout))


@dataclass(frozen=True)
class DAPOSettings(GroupSettings):
    """DAPO's switches; `DAPO.paper` sets them as the paper does."""

    gamma: float = 1.0  # returns are not discounted
    clip_range_high: float | None = 0.28  # clip-higher
    dual_clip: float | None = 10.0
    normalize_advantage: bool = False  # group advantages are never normalised again
    dynamic_sampling: bool = True
    max_resamples: int = 10
    advantage: str = "normalised"  # or "centred" (Dr. GRPO), "leave_one_out" (RLOO), or of `tree_advantages`, by node

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.advantage not in ADVANTAGES and self.advantage not in ESTIMATORS:
            known = ", ".join([*ADVANTAGES, *ESTIMATORS])
            raise ConfigError(f"advantage must be one of {known}, got {self.advantage!r}")


ADVANTAGES = {
    "normalised": group_normalised,
    "centred": group_centred,
    "leave_one_out": group_leave_one_out,
}


class DAPO(GroupSampling):
    """Decoupled clip and dynamic sampling policy optimisation.

    Dynamic sampling keeps groups with 0 < #correct < G (by the env's correctness flag; where it has none, groups whose
    returns differ) and samples more until the batch is full, at most `max_resamples` times; then it learns from what
    there is and says so. Every episode, kept or not, counts against the budget of steps.
    """

    settings_class = DAPOSettings
    settings: DAPOSettings
    uses_critic: ClassVar[bool] = False
    papers: ClassVar[Mapping[str, Any]] = {
        **OF_PAPERS, "n_episodes": 8192, "group_size": 16, "dynamic_sampling": True, "overlong_max": 48,
        "rollout_steps": 2**30,
    }  # fmt: skip

    def collect(self, callback: BaseCallback) -> Trajectories:
        s = self.settings
        collector = self.collector(callback)
        wanted = max(1, s.n_episodes // s.group_size)
        kept: list[Trajectories] = []
        groups = rounds = sampled = steps = 0
        last = self.num_timesteps + self.steps_left()
        while groups < wanted and rounds < (s.max_resamples if s.dynamic_sampling else 1):
            if steps >= s.rollout_steps or self.num_timesteps >= last:
                break
            part = self.sample_groups(collector, wanted, rounds * wanted)
            sampled += part.episodes // s.group_size
            rounds += 1
            self.note_episodes(collector, part)
            if s.dynamic_sampling:
                part = part.select(informative_groups(part.returns, part.groups, part.correctness))
            if part.episodes:
                kept.append(part)
                steps += part.steps
                groups += len(np.unique(part.groups))
        self.logger.record("rollout/groups_sampled", sampled)
        self.logger.record("rollout/groups_kept", min(groups, wanted))
        if not kept:
            self._say(f"none of {sampled} groups had both right and wrong answers: nothing to learn from this time")
            return part
        if groups < wanted:
            self._say(f"{groups} of {wanted} informative groups after {rounds} rounds of sampling: learning from those")
        rollout = join(kept)
        first = np.unique(rollout.groups)[:wanted]
        return rollout.select(rollout.groups <= first[-1])

    def weigh(self, rollout: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        returns = rollout.returns + self.punishment(rollout)
        if self.settings.advantage in ESTIMATORS:
            return step_advantages(self.settings.advantage, rollout, returns), np.zeros(rollout.steps, np.float32)
        advantages = ADVANTAGES[self.settings.advantage](returns, rollout.groups)
        return np.repeat(advantages, rollout.lengths), np.zeros(rollout.steps, np.float32)

    def update(self, rollout: Trajectories) -> None:
        if self.processes.any(rollout.episodes > 0):
            super().update(rollout)

    def _say(self, sentence: str) -> None:
        if self.verbose:
            print(f"{type(self).__name__}: {sentence}")
