"""Optuna: a space of settings for every learner, as `suggest(trial, "ppo")`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treegym.errors import ConfigError, suggest

__all__ = ["SPACES", "Choice", "Range", "suggest_settings"]


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def of(self, trial: Any, name: str) -> float | int:
        """Returns a value that a trial suggests."""
        if self.whole:
            return int(trial.suggest_int(name, int(self.low), int(self.high), log=self.log))
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def of(self, trial: Any, name: str) -> Any:
        """Returns a value that a trial suggests."""
        return trial.suggest_categorical(name, list(self.values))


Space = Mapping[str, Range | Choice]
_GRADIENT: Space = {
    "learning_rate": Range(1e-4, 3e-3, log=True),
    "n_episodes": Choice((64, 128, 256, 512)),
    "n_epochs": Range(1, 8, whole=True),
    "batch_size": Choice((128, 256, 512, 1024)),
    "clip_range": Range(0.1, 0.3),
    "max_grad_norm": Range(0.3, 2.0, log=True),
}
_CRITIC: Space = {"vf_coef": Range(0.1, 1.0), "gamma": Range(0.95, 1.0)}
_GROUPS: Space = {"group_size": Choice((4, 8, 16))}
_SEARCH: Space = {
    "learning_rate": Range(3e-4, 3e-3, log=True),
    "num_simulations": Choice((32, 64, 128)),
    "replay_ratio": Range(1.0, 8.0, log=True),
    "temperature": Range(0.5, 1.5),
    "temperature_moves": Range(0, 8, whole=True),
}
# Where good settings of the bundled world lie, with room on both sides; names and kinds are the agents' own switches.
SPACES: dict[str, Space] = {
    "ppo": {**_GRADIENT, **_CRITIC, "ent_coef": Range(1e-4, 3e-2, log=True), "gae_lambda": Range(0.8, 1.0)},
    "dapo": {**_GRADIENT, **_GROUPS, "clip_range_high": Range(0.2, 0.4)},
    "vapo": {**_GRADIENT, **_GROUPS, "vf_coef": Range(0.1, 1.0), "clip_range_high": Range(0.2, 0.4)},
    "alphazero": {**_SEARCH, "vf_coef": Range(0.3, 3.0, log=True)},
    "expert_iteration": _SEARCH,
    "grpo": {**_GRADIENT, **_GROUPS},
    "dr_grpo": {**_GRADIENT, **_GROUPS},
    "rloo": {**_GRADIENT, **_GROUPS},
    "reinforce_pp": {**_GRADIENT, "kl_coef": Range(1e-3, 1e-1, log=True)},
    "orz_ppo": {**_GRADIENT, "vf_coef": Range(0.1, 1.0)},
}
SPACES |= {f"{name}_search": SPACES[name] for name in ("ppo", "vapo")}  # the same learners, searching when they act


def suggest_settings(trial: Any, agent: str) -> dict[str, Any]:
    """Returns keyword arguments for an agent, suggested by a trial.

    Example: ``make_agent("dapo", env, seed=0, **suggest_settings(trial, "dapo"))``.
    """
    if agent not in SPACES:
        raise ConfigError(f"there is no space of settings for {agent!r}.{suggest(agent, SPACES)}")
    return {name: part.of(trial, name) for name, part in SPACES[agent].items()}
