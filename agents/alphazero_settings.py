"""AlphaZero's switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from treegym.agents.schedules import Schedule
from treegym.agents.settings import Settings
from treegym.checks import number, one_of
from treegym.errors import ConfigError
from treegym.rewards.sees import Sees
from treegym.search.settings import TREE_RULES

__all__ = ["ELSEWHERE", "LANES", "NETWORK", "AlphaZeroSettings"]

LANES = 32  # of a single environment that can be made or copied again: what searches judge at once
NETWORK = {"net_arch": [128, 128]}  # of a perceptron; searches ask little, so it may be larger
# what suits perceptrons, which are for worlds other than token trees; games of two players add gamma=-1.0
ELSEWHERE: dict[str, Any] = {
    "gamma": 0.99, "num_simulations": 32, "n_steps": 8, "batch_size": 256, "replay_ratio": 8.0,
    "value_target": "followed", "value_unit": True, "q_unit": "spread", "search_options": {"solve": True},
    "exploring_starts": 0.8,
}  # fmt: skip


@dataclass(frozen=True)
class AlphaZeroSettings(Settings):
    """AlphaZero's switches."""

    gamma: float = 1.0
    method: str = "gumbel"  # or "puct", or any tree method of treegym.search
    num_simulations: int = 128
    predict_simulations: int | None = None  # when acting; None: as many as when learning
    n_episodes: int = 128  # episodes of self-play per iteration
    n_steps: int | None = None  # moves per lane and iteration instead; episodes go on in the next
    learning_rate: Schedule = 1e-3
    batch_size: int = 512
    replay_ratio: float = 4.0  # how often each new position is learned from, on average
    buffer_size: int = 60_000
    vf_coef: float = 1.0
    value_unit: bool = False  # the critic learns in units of what is paid, wherever its policy has a `value_net`
    l2: float = 1e-4
    max_grad_norm: float | None = 1.0
    value_target: str = "return"  # or "n_step", or "followed": see `planning/targets.py`
    n_step: int = 5
    trace: float = 0.9  # lambda of the value target "followed"
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
    q_unit: str = "siblings"  # what Q is measured in: the siblings' own range, or the usual "spread" of siblings
    search_options: dict[str, Any] | None = None  # passed to the search, such as {"c_scale": 0.3}

    def options(self, *, explore: bool, spread: float = 1.0) -> dict[str, Any]:
        """Returns the search's settings, with noise or without; `spread` is what siblings usually differ by.

        With ``q_unit="spread"`` Q is not scaled to [0, 1] among siblings, which makes large what the critic does not
        know where they hardly differ; the weights of Q and of exploring are in units of the usual spread. Learning
        averages over what many searches got wrong. A move that is played at last has but one search behind it, so
        there Q counts as much as its visits: few simulations leave the policy's word standing (c_visit 0).
        """
        options: dict[str, Any] = {"discount": self.gamma}
        if self.q_unit == "spread":
            options |= {"normalise": False}
            options |= {"c_scale": 0.1 / spread} if self.method == "gumbel" else {"c_init": 1.25 * spread}
            options |= {} if explore else {"c_visit": 0.0}
        options |= self.search_options or {}
        if self.method == "gumbel":
            options.setdefault("gumbel_scale", 1.0 if explore else 0.0)
        elif explore:
            options.setdefault("root_noise", self.root_noise)
        return options

    def __post_init__(self) -> None:
        for name in ("selfplay_sees", "planner_sees"):
            one_of(name, getattr(self, name), (Sees.VALUE, Sees.VERIFIER))
        one_of("q_unit", self.q_unit, ("siblings", "spread"))
        one_of("value_target", self.value_target, ("return", "n_step", "followed"))
        number("replay_ratio", self.replay_ratio, low=0.0, high=10_000.0)
        if self.num_simulations < 1:
            raise ConfigError(f"num_simulations must be at least 1, got {self.num_simulations}")
        if self.likelihood_weight < 0:
            raise ConfigError(f"likelihood_weight must be at least 0, got {self.likelihood_weight!r}")
        if self.reuse_tree and self.method not in TREE_RULES:
            raise ConfigError(
                f"reuse_tree keeps a search tree, and {self.method!r} makes none: choose one of {', '.join(TREE_RULES)}"
            )
        if self.reuse_tree and self.n_steps is not None:
            raise ConfigError("reuse_tree keeps trees from the first move of an episode: leave n_steps out")
        for name in ("reanalyse", "exploring_starts"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")
