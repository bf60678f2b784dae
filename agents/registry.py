"""Every agent by name; each is imported when it is asked for. A new agent is one module and one line here."""

from __future__ import annotations

import importlib
from typing import Any

from treegym.errors import ConfigError, suggest

__all__ = ["AGENTS", "SUMMARIES", "agent_class", "make_agent"]

_A, _B = "treegym.agents", "treegym.agents.baselines"

# name: (import path, one line)
_ENTRIES: dict[str, tuple[str, str]] = {
    "ppo": (f"{_A}.ppo:PPO", "proximal policy optimisation with masks"),
    "dapo": (f"{_A}.dapo:DAPO", "groups, clip-higher, dynamic sampling, token loss"),
    "vapo": (f"{_A}.vapo:VAPO", "pretrained critic, decoupled length-adaptive GAE, imitation of right answers"),
    "alphazero": (f"{_A}.alphazero:AlphaZero", "search improves the policy, the policy learns from search"),
    "expert_iteration": (f"{_A}.alphazero:ExpertIteration", "AlphaZero without a value head"),
    "grpo": (f"{_A}.presets:GRPO", "group-relative policy optimisation"),
    "dr_grpo": (f"{_A}.presets:DrGRPO", "GRPO without division by spread or length"),
    "rloo": (f"{_A}.presets:RLOO", "REINFORCE with the leave-one-out baseline"),
    "reinforce_pp": (f"{_A}.presets:ReinforcePlusPlus", "REINFORCE with whitened returns and KL in the reward"),
    "orz_ppo": (f"{_A}.presets:ORZPPO", "PPO with gamma = lambda = 1"),
    "random": (f"{_B}.choosers:RandomAgent", "uniform over the legal children"),
    "greedy_prior": (f"{_B}.choosers:GreedyPrior", "the primary's likeliest child"),
    "teacher": (f"{_B}.choosers:Teacher", "one teacher's likeliest child"),
    "step_vote": (f"{_B}.choosers:StepVote", "the teachers vote on every step"),
    "sequence_vote": (f"{_B}.answers:SequenceVote", "the teachers vote on whole answers"),
    "rerank": (f"{_B}.answers:Rerank", "the primary picks among the teachers' answers"),
    "beam": (f"{_B}.planners:Beam", "beam search"),
    "best_of_n": (f"{_B}.planners:BestOfN", "the best of several sampled answers"),
    "lookahead": (f"{_B}.planners:Lookahead", "exhaustive search a few steps ahead"),
    "mcts": (f"{_B}.planners:MCTS", "plain UCT"),
    "tournament": (f"{_B}.choosers:Tournament", "the best of a few children drawn at random"),
    "roulette": (f"{_B}.choosers:Roulette", "children drawn by the primary's probability"),
    "rank": (f"{_B}.choosers:RankSelection", "children drawn by rank under the primary"),
    "oracle": (f"{_B}.oracle:Oracle", "the exact optimum of a closed world: an upper bound"),
}

AGENTS: dict[str, str] = {name: path for name, (path, _) in _ENTRIES.items()}
SUMMARIES: dict[str, str] = {name: summary for name, (_, summary) in _ENTRIES.items()}


def agent_class(name: str) -> type[Any]:
    """Returns the class of an agent by its name here, or by ``"module:Class"``."""
    path = AGENTS.get(name, name if ":" in name else "")
    if not path:
        raise ConfigError(f"unknown agent {name!r}.{suggest(name, AGENTS)}")
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"agent {name!r} ({path}) cannot be imported: {error}") from error


def make_agent(name: str, env: Any, *, policy: str = "ChildPolicy", seed: int | None = None, **switches: Any) -> Any:
    """Returns an agent for an environment, whether it learns or not."""
    found = agent_class(name)
    if getattr(found, "learns", True):
        return found(policy, env, seed=seed, **switches)
    return found(env, seed=seed, **switches)
