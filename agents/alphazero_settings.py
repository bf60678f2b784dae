"""AlphaZero's switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from treegym.agents.schedules import Schedule
from treegym.agents.settings import Settings
from treegym.checks import one_of
from treegym.errors import ConfigError
from treegym.rewards.sees import Sees
from treegym.search.settings import TREE_RULES

__all__ = ["AlphaZeroSettings"]


@dataclass(frozen=True)
class AlphaZeroSettings(Settings):
    """AlphaZero's switches."""

    gamma: float = 1.0
    method: str = "gumbel"  # or "puct", or any tree method of treegym.search
    num_simulations: int = 128
    predict_simulations: int | None = None  # when acting; None: as many as when learning
    n_episodes: int = 128  # episodes of self-play per iteration
    learning_rate: Schedule = 1e-3
    batch_size: int = 512
    replay_ratio: float = 4.0  # how often each new position is learned from, on average
    buffer_size: int = 60_000
    vf_coef: float = 1.0
    l2: float = 1e-4
    max_grad_norm: float | None = 1.0
    value_target: str = "return"  # or "n_step"
    n_step: int = 5
    temperature: float = 1.0  # moves are sampled from pi ** (1 / temperature) ...
    temperature_moves: int = 4  # ... for the first so many moves of an episode; then the search's move is played
    root_noise: float = 0.25  # PUCT's share of Dirichlet noise while learning
    reanalyse: float = 0.0  # share of each batch whose pi is searched anew with the current networks
    selfplay_sees: str = "verifier"  # what the search on training roots is told: "verifier" or "value"
    planner_sees: str = "value"  # what the search of `predict` is told
    child_value_coef: float = 1.0  # weight of (Q_search(s, a) - Q(s, a))^2 over the children that search visited
    path_memory: bool = True  # token trees: the critic reads what the models thought along the path (`memory.py`)
    exploring_starts: float = 0.5  # share of episodes that begin at a random inner node (token trees)
    tabulate: bool = True  # closed trees: judge every node once, search inside one kernel
    likelihood_weight: float = 0.1  # token trees: what `predict`'s search is paid for a step, times its log-probability
    reuse_tree: bool = False  # self-play keeps what was found below the move played; searches on top of it
    search_options: dict[str, Any] | None = None  # passed to the search, such as {"c_scale": 0.3}

    def options(self, *, explore: bool) -> dict[str, Any]:
        """Returns the search's settings, with noise or without."""
        options: dict[str, Any] = {"discount": self.gamma, **(self.search_options or {})}
        if self.method == "gumbel":
            options.setdefault("gumbel_scale", 1.0 if explore else 0.0)
        elif explore:
            options.setdefault("root_noise", self.root_noise)
        return options

    def __post_init__(self) -> None:
        for name in ("selfplay_sees", "planner_sees"):
            one_of(name, getattr(self, name), (Sees.VALUE, Sees.VERIFIER))
        one_of("value_target", self.value_target, ("return", "n_step"))
        if self.num_simulations < 1:
            raise ConfigError(f"num_simulations must be at least 1, got {self.num_simulations}")
        if self.likelihood_weight < 0:
            raise ConfigError(f"likelihood_weight must be at least 0, got {self.likelihood_weight!r}")
        if self.reuse_tree and self.method not in TREE_RULES:
            raise ConfigError(
                f"reuse_tree keeps a search tree, and {self.method!r} makes none: choose one of {', '.join(TREE_RULES)}"
            )
        for name in ("reanalyse", "exploring_starts"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")
