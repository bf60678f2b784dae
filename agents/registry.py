"""Every agent by name; each is imported when it is asked for. A new agent is one module and one line here.

An installed package adds agents with the entry point group ``treegym.agents``; an import path names any other.
"""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym

from treegym.errors import ConfigError
from treegym.registry import Registry

__all__ = ["AGENTS", "agent_class", "class_that_saves", "is_ours", "make_agent", "policy_first", "suitable_policy"]

_A, _B = "treegym.agents", "treegym.agents.baselines"

_TABLE = {
    "ppo": (f"{_A}.ppo:PPO", "proximal policy optimisation with masks"),
    "dapo": (f"{_A}.dapo:DAPO", "groups, clip-higher, dynamic sampling, token loss"),
    "vapo": (f"{_A}.vapo:VAPO", "pretrained critic, decoupled length-adaptive GAE, imitation of right answers"),
    "alphazero": (f"{_A}.alphazero:AlphaZero", "search improves the policy, the policy learns from search"),
    "expert_iteration": (f"{_A}.alphazero:ExpertIteration", "AlphaZero without a value head"),
    "ppo_search": (f"{_A}.planning.searching:SearchingPPO", "PPO that searches when it acts"),
    "vapo_search": (f"{_A}.planning.searching:SearchingVAPO", "VAPO that searches when it acts"),
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
    "self_consistency": (f"{_B}.compute:SelfConsistency", "N whole chains, then an answer (test-time compute)"),
    "adaptive_consistency": (f"{_B}.compute:AdaptiveConsistency", "chains until one answer leads with confidence"),
    "early_stopping": (f"{_B}.compute:EarlyStoppingConsistency", "chains until a window of them agrees"),
    "score_threshold": (f"{_B}.compute:ScoreThreshold", "chains until the judge likes one well enough"),
    "parallel_probe": (f"{_B}.compute:ParallelProbe", "all chains together, asked after each segment"),
    "oracle": (f"{_B}.oracle:Oracle", "the exact optimum of a closed world: an upper bound"),
}
AGENTS = Registry("agent", _TABLE, group="treegym.agents")


def agent_class(name: str) -> Any:
    """Returns the class of an agent by its name here, or by ``"module:Class"``."""
    return AGENTS.find(name)


def class_that_saves(algorithm: str, path: Any) -> Any:
    """Returns the agent whose checkpoints name this algorithm, among those with a name here.

    What a file says is compared with what is known here; it is never imported on its word.
    """
    for name in AGENTS:
        if AGENTS.path_of(name).partition(":")[2] == algorithm:
            return AGENTS.find(name)
    raise ConfigError(
        f"{path} was made by {algorithm!r}, which is not among the agents known here: name its class by an import path "
        "(--algorithm my_module:MyAgent)"
    )


def make_agent(name: str, env: Any, *, policy: str | None = None, seed: int | None = None, **switches: Any) -> Any:
    """Returns an agent for an environment, made the way its kind is made.

    Args:
        name: a name here or an import path, of any class or function in one of two forms: ``(policy, env, seed=, ...)``
            as Stable-Baselines3's algorithms, or ``(env, seed=, ...)``.
        env: the environment.
        policy: what those of the first form get; None: what suits the environment.
        seed: of everything random.
        **switches: the agent's own.
    """
    found = agent_class(name)
    if policy_first(found):
        return found(policy or suitable_policy(found, env), env, seed=seed, **switches)
    return found(env, seed=seed, **switches)


def suitable_policy(found: Any, env: Any) -> str:
    """Returns the policy that suits an agent and an environment where none is named."""
    if isinstance(env, str):
        env = gym.make(env)
    if is_ours(found) and hasattr(_inner(env), "layout"):
        return "ChildPolicy"
    space = getattr(env, "single_observation_space", env.observation_space)
    return "MultiInputPolicy" if hasattr(space, "spaces") else "MlpPolicy"


def _inner(env: Any) -> Any:
    """Returns the environment within wrappers, or that a world is made of."""
    return getattr(env, "unwrapped", None) or getattr(env, "env", env).unwrapped


def policy_first(found: Any) -> bool:
    """Returns whether an agent is made the way Stable-Baselines3's algorithms are: policy first, then env."""
    try:
        names = tuple(inspect.signature(found).parameters)[:2]
    except (TypeError, ValueError):  # made by something that has no signature
        return False
    return names == ("policy", "env")


def is_ours(found: Any) -> bool:
    """Returns whether an agent takes a native batch whose lanes rest until they are reset."""
    return any(base.__module__.startswith("treegym.agents.") for base in getattr(found, "__mro__", ()))
