"""Learned selection: the suite's agents, trained on recorded measurements, say which candidate is measured next."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

import treegym  # noqa: F401 (registers the ids)
from treegym import agents
from treegym.agents.policies.child import ChildPolicy
from treegym.envs.selection.live import MeasuredWorld
from treegym.optimize.candidates import Candidate
from treegym.optimize.config import CoreConfig
from treegym.optimize.core import HybridOptimizationCore
from treegym.optimize.features import describe
from treegym.optimize.fitness import OBJECTIVES, ZONES
from treegym.optimize.table import ModuleEntry, SelectionTable, load_table

__all__ = ["HybridRLOptimizer", "PolicyNetwork", "ValueNetwork"]

CHOICE = 24  # candidates the learned policy chooses among; fewer are padded
LANES = 64
PRIOR_WEIGHT = 0.5  # agents start by trusting the history of strategies
SHIPPED = Path(__file__).parent / "data" / "selection_policy.zip"  # DAPO, trained as `python -m` of this module says
SHIPPED_STEPS, SHIPPED_HIDDEN = 60_000, 64


# Settings that say how the policy is trained.
_TRAINING = (
    "enable_dapo", "enable_vapo", "enable_orz", "objective_weights", "rl_hidden_dim", "rl_learning_rate",
    "rl_value_learning_rate", "rl_gamma", "rl_lambda", "rl_epsilon_low", "rl_epsilon_high", "rl_max_episodes",
    "rl_max_steps_per_episode", "seed",
)  # fmt: skip


class PolicyNetwork(ChildPolicy):
    """The actor: calling it gives the logits of the candidates of each state. The critic trains beside it."""

    def forward(self, obs: Mapping[str, torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        """Returns logits ``[B, K] float32``, those of actions that are not legal as the layers make them."""
        return self.logits(obs)


class ValueNetwork(nn.Module):
    """The critic of a policy: calling it gives the value of each state. It shares the policy's own layers."""

    def __init__(self, policy: ChildPolicy) -> None:
        super().__init__()
        self._policy = [policy]  # in a list, so that the actor's layers are not counted as this network's
        for name, layer in policy.named_children():
            if name.startswith("critic_"):
                self.add_module(name, layer)

    def forward(self, obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns values ``[B] float32``."""
        return self._policy[0].values(obs)


class HybridRLOptimizer:
    """Learns on recorded measurements which candidate to measure next, with the suite's own agents.

    The switches of the config say which: DAPO, VAPO, or both (the one that does better on validation modules drives
    the selection), PPO if neither; ``enable_orz`` shapes the training reward by zones.
    """

    def __init__(self, config: Mapping[str, Any] | CoreConfig | None = None) -> None:
        self.config = CoreConfig.of(config)
        self.agents: dict[str, Any] = {}
        self.validation: dict[str, float] = {}  # mean return on validation modules
        self.agent: Any = None

    def algorithms(self) -> list[str]:
        """Returns the names of the agents that the switches choose."""
        chosen = [name for name, on in (("DAPO", self.config.enable_dapo), ("VAPO", self.config.enable_vapo)) if on]
        return chosen or ["PPO"]

    def learn(self, total_timesteps: int | None = None, **env_settings: Any) -> HybridRLOptimizer:
        """Trains on recorded training modules; by default `rl_max_episodes` rounds of `rl_max_steps_per_episode`."""
        settings = {
            "num_candidates": CHOICE,
            "objective_weights": dict(self.config.objective_weights),
            "max_iterations": max(2, self.config.max_iterations),
            **env_settings,
        }
        training = {**settings, "reward_zones": [list(pair) for pair in ZONES]} if self.config.enable_orz else settings
        steps = total_timesteps or self.config.rl_max_episodes * self.config.rl_max_steps_per_episode * LANES
        for name in self.algorithms():
            env = gym.make_vec("CandidateSelection-v0", num_envs=LANES, autoreset_mode="Disabled", **training)
            agent = getattr(agents, name)(
                PolicyNetwork,
                env,
                seed=self.config.seed,
                device="cpu",
                policy_kwargs={"hidden": self.config.rl_hidden_dim, "prior_weight": PRIOR_WEIGHT},
                **self._switches(name),
            )
            _own_rate(agent, self.config.rl_value_learning_rate / self.config.rl_learning_rate)
            agent.learn(steps)
            self.agents[name] = agent
            self.validation[name] = _mean_return(agent, {**settings, "split": "validation"})
        self.agent = self.agents[max(self.validation, key=lambda name: self.validation[name])]
        return self

    def ready(self) -> Any:
        """Returns the agent that drives: the one trained, else the one that ships, else one that is trained now.

        The one that ships was trained with the default settings; where those of training are others, it is not asked.
        """
        if self.agent is None:
            default = CoreConfig()
            if all(getattr(self.config, name) == getattr(default, name) for name in _TRAINING):
                self.agent = agents.DAPO.load(SHIPPED, device="cpu", policy=PolicyNetwork)
            else:
                self.learn()
        return self.agent

    def policy(self, core: HybridOptimizationCore | None) -> _LearnedPolicy:
        """Returns the learned selection for a core; None: for candidates of a module that nothing is known of."""
        return _LearnedPolicy(self, core)

    def _switches(self, name: str) -> dict[str, Any]:
        c = self.config
        switches: dict[str, Any] = {
            "learning_rate": c.rl_learning_rate,
            "gamma": c.rl_gamma,
            "clip_range": c.rl_epsilon_low,
            "clip_range_high": c.rl_epsilon_high,
        }
        if name == "PPO":
            switches["gae_lambda"] = c.rl_lambda
        elif name == "VAPO":  # its lambda grows with the length of an episode: from here
            switches["lambda_min"] = c.rl_lambda
        return switches


class _LearnedPolicy:
    """Shows an agent the live candidates as recorded ones, and reads off which it would measure next."""

    def __init__(self, optimizer: HybridRLOptimizer, core: HybridOptimizationCore | None) -> None:
        self.optimizer, self.core = optimizer, core
        self.finished = False

    def __call__(self, candidates: Sequence[Candidate], fitness: Sequence[float]) -> int:
        core, config = self.core, self.optimizer.config
        scorer = self.optimizer.ready().scorer
        measured = [] if core is None else core.evaluated[-CHOICE // 2 :]
        room = CHOICE - len(measured)
        order = np.argsort(-np.asarray(fitness), kind="stable")[:room]
        shown = [found.candidate for found in measured] + [candidates[int(i)] for i in order]
        results = {found.candidate: found.measurement for found in measured}

        def look_up(candidate: Candidate) -> tuple[float, float, float] | None:
            m = results[candidate]
            return None if m is None else (m.speed.value, m.memory.value, m.accuracy.value)

        weights = (
            config.objective_weights if core is None else dict(zip(OBJECTIVES, core.weights.tolist(), strict=True))
        )
        table = load_table()
        world = MeasuredWorld.of(
            table, self._entry(table), shown, look_up, num_candidates=CHOICE, objective_weights=weights,
            max_iterations=max(2, config.max_iterations),
        )  # fmt: skip
        state = world.standing_after(range(len(measured)))
        logits = scorer.infer(world.observe(state[None]))[0][0]
        self.finished = bool(np.argmax(logits) < len(measured) or np.argmax(logits) == CHOICE)
        return int(order[int(np.argmax(logits[len(measured) : len(shown)]))])

    def _entry(self, table: SelectionTable) -> ModuleEntry:
        """Returns what is known of the module; of one that is not known, the features of an average training module."""
        if self.core is not None and self.core.module is not None:
            features, kind = describe(self.core.module, self.core.sample), self.core.kind
        else:
            rows = [module.features for module in table.modules if module.split == "train"]
            features, kind = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}, "unknown"
        return ModuleEntry("module", 0, kind, "test", features)


def _own_rate(agent: Any, ratio: float) -> None:
    """Gives an agent's critic a learning rate of its own: `ratio` times the policy's, whatever its schedule."""
    critic = {id(parameter) for parameter in agent.scorer.critic_parameters()}
    optimizers = [agent.optimizer, *([agent.critic_optimizer] if hasattr(agent, "critic_optimizer") else [])]
    for optimizer in optimizers:
        (group,) = optimizer.param_groups
        own = [parameter for parameter in group["params"] if id(parameter) in critic]
        if not own:
            continue  # DAPO learns without a critic
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in critic]
        optimizer.add_param_group({**group, "params": own})
        optimizer.register_step_pre_hook(functools.partial(_follow, ratio=ratio))


def _follow(optimizer: Any, args: Any, kwargs: Any, *, ratio: float) -> None:
    optimizer.param_groups[1]["lr"] = ratio * optimizer.param_groups[0]["lr"]


def _mean_return(agent: Any, settings: Mapping[str, Any]) -> float:
    """Returns the mean return of an agent's greedy choices, one episode at every root of the split."""
    roots = gym.make("CandidateSelection-v0", **settings).unwrapped.world.pool  # type: ignore[attr-defined]
    env = gym.make_vec("CandidateSelection-v0", num_envs=len(roots), autoreset_mode="SameStep", **settings)
    seen, _ = env.reset(seed=0, options={"roots": roots})
    total, going = np.zeros(len(roots)), np.ones(len(roots), bool)
    while going.any():
        seen, reward, terminated, truncated, _ = env.step(agent.scorer.best(dict(seen)))
        total += np.where(going, reward, 0.0)
        going &= ~(terminated | truncated)
    return float(total.mean())


def _ship() -> None:
    """Trains the policy that comes with the package, anew: ``python -m treegym.learned_selection``."""
    optimizer = HybridRLOptimizer({"enable_vapo": False, "rl_hidden_dim": SHIPPED_HIDDEN}).learn(SHIPPED_STEPS)
    SHIPPED.parent.mkdir(exist_ok=True)
    optimizer.agent.save(SHIPPED)
    print(f"wrote {SHIPPED}: mean return on validation modules {optimizer.validation}", file=sys.stderr)


if __name__ == "__main__":
    importlib.import_module("treegym.learned_selection")._ship()  # under its own name, which the policy is saved by
