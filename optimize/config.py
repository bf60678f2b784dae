"""The settings of the hybrid optimisation core, under the names its users know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from treegym.checks import flag, number, whole
from treegym.errors import ConfigError, suggest
from treegym.optimize.fitness import DEFAULT_WEIGHTS, weights_of
from treegym.optimize.strategies import STRATEGIES, expand

__all__ = ["FOUNDING", "SELECTIONS", "UNASKED", "CoreConfig"]

SELECTIONS = ("tournament", "roulette", "rank", "rl", "optuna")
FOUNDING = ("kernel_fusion", "quantization", "memory_pooling", "attention_fusion")  # families of the founding document
UNASKED = (*FOUNDING, "back_end")  # families that are tried unless others are named
_ALIASES = {"hybrid_strategies": "optimization_strategies"}
_WHOLE = ("tournament_size", "max_iterations", "megabytes", "rl_hidden_dim", "rl_max_episodes",
          "rl_max_steps_per_episode")  # fmt: skip
_OPTIONAL = ("max_accuracy_drop", "time_budget")  # None: no limit
_RANGES: dict[str, tuple[float, float | None]] = {
    "performance_threshold": (0, None), "convergence_threshold": (0, None), "rl_epsilon_high": (0, None),
    "seconds_per_candidate": (1e-3, None), "timeout": (1e-3, None),
    "rl_learning_rate": (1e-9, 1), "rl_value_learning_rate": (1e-9, 1),
    "rl_gamma": (0, 1), "rl_lambda": (0, 1), "rl_epsilon_low": (0, 1), "max_accuracy_drop": (0, 1),
    "time_budget": (0, None),
}  # fmt: skip


@dataclass(frozen=True)
class CoreConfig:
    """All switches; `CoreConfig.of(mapping)` checks names and values."""

    enable_hybrid_optimization: bool = True  # off: the original comes back, with a note
    enable_candidate_selection: bool = True  # off: apply the single strategy that is expected to do best
    enable_tournament_selection: bool = True
    selection_strategy: str = "tournament"  # tournament, roulette, rank, rl or optuna
    tournament_size: int = 3
    enable_adaptive_hybrid: bool = True  # learn how strategies do on each kind of module, and keep it on disk
    history_path: str | None = None  # where; None: the user's state directory
    cache_path: str | None = None  # measurements that were made before are taken from here, new ones are put here
    enable_multi_objective_optimization: bool = True
    objective_weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    enable_ensemble_optimization: bool = True  # pairs and longer ordered combinations
    enable_rl_optimization: bool = True
    enable_dapo: bool = True
    enable_vapo: bool = True
    enable_orz: bool = True  # reward zoning
    num_candidates: int | None = None  # None: 5, or 8 to 10 for large modules
    optimization_strategies: tuple[str, ...] = UNASKED  # names or families; these: and all that are registered
    model_optimizations: Mapping[str, Sequence[str]] = field(default_factory=dict)  # kind or class of model -> the same
    performance_threshold: float = 0.8  # a fitness that is good enough to stop
    convergence_threshold: float = 0.01  # stop when two measurements in a row improve the best by less
    max_iterations: int = 10  # candidates measured at most
    max_accuracy_drop: float | None = 0.01  # hard limit on lost accuracy; None: only the fitness counts
    allow_slower: bool = False  # let a winner be slower than the original, for goals that memory drives
    time_budget: float | None = (
        None  # seconds for all of it, the last measurement of the winner included; None: no limit
    )
    seconds_per_candidate: float = 2.0  # time for measuring one
    processes: int | None = None  # candidates tried and measured side by side; None: as there are processors
    timeout: float = 120.0  # after which a candidate is given up
    megabytes: int = 8_192  # memory beyond this costs a candidate its life
    rl_hidden_dim: int = 128
    rl_learning_rate: float = 3e-4
    rl_value_learning_rate: float = 1e-3
    rl_gamma: float = 0.99
    rl_lambda: float = 0.95
    rl_epsilon_low: float = 0.1  # the clip range is asymmetric
    rl_epsilon_high: float = 0.3
    rl_max_episodes: int = 100  # rounds of training
    rl_max_steps_per_episode: int = 50  # steps per round, in every lane
    seed: int = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any] | CoreConfig | None = None) -> CoreConfig:
        """Returns a config from a mapping; raises ConfigError for unknown keys (with a suggestion) and bad values."""
        if isinstance(settings, CoreConfig):
            return settings
        known = {one.name for one in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in (settings or {}).items():
            name = _ALIASES.get(key, key)
            if name not in known:
                raise ConfigError(f"there is no setting {key!r}.{suggest(key, [*known, *_ALIASES])}")
            values[name] = value
        if "optimization_strategies" in values:
            named = values["optimization_strategies"]
            values["optimization_strategies"] = (named,) if isinstance(named, str) else tuple(named)
        return cls(**values)

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.type == "bool":
                flag(one.name, getattr(self, one.name))
        whole("seed", self.seed)
        for name in _WHOLE:
            whole(name, getattr(self, name), low=1)
        for name in ("num_candidates", "processes"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), low=1)
        for name, (low, high) in _RANGES.items():
            if name not in _OPTIONAL or getattr(self, name) is not None:
                number(name, getattr(self, name), low=low, high=high)
        if self.selection_strategy not in SELECTIONS:
            hint = suggest(str(self.selection_strategy), SELECTIONS)
            raise ConfigError(f"there is no selection strategy {self.selection_strategy!r}.{hint}")
        if not self.optimization_strategies:
            raise ConfigError("optimization_strategies is empty; name families or strategies, such as quantization")
        expand(self.optimization_strategies)
        if not isinstance(self.model_optimizations, Mapping):
            came = type(self.model_optimizations).__name__
            raise ConfigError(f"model_optimizations is a {came}; expected lists of strategies by kind of model")
        for kind, named in self.model_optimizations.items():
            if isinstance(named, str) or not named:
                raise ConfigError(
                    f"model_optimizations[{kind!r}] is {named!r}; expected a list of strategies or families"
                )
            expand(named)
        weights_of(self.objective_weights)

    def strategies_for(self, kind: str, title: str = "") -> tuple[str, ...]:
        """Returns the names and families to try on a module of a kind, whose class has a title.

        `model_optimizations` is asked first: a key is a kind, or a part of the class's name (``"deepseek"`` of
        ``DeepSeekV3``). Unless named, strategies of other packages are tried as well.
        """
        title = title.lower()
        for key, named in self.model_optimizations.items():
            if key == kind or key.replace("_", "").lower() in title:
                return tuple(named)
        asked = self.optimization_strategies
        return (*asked, *STRATEGIES.others()) if asked in (FOUNDING, UNASKED) else asked

    @property
    def selection(self) -> str:
        """The way candidates are selected, switches considered."""
        if self.selection_strategy == "tournament" and not self.enable_tournament_selection:
            return "rank"
        if self.selection_strategy == "rl" and not self.enable_rl_optimization:
            raise ConfigError("selection_strategy is 'rl', but enable_rl_optimization is false; change one of them")
        return self.selection_strategy
