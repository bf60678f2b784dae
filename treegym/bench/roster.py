"""Finding and making agents: registered names, plug-ins, import paths.

An agent is any class (or function) of one of these forms; no base class is needed:

- a Stable-Baselines3 algorithm: made as ``cls(policy, env, seed=seed, **kwargs)``;
- anything else: made as ``cls(env, seed=seed, **kwargs)`` with a Gymnasium vector environment. It needs
  ``predict(observation, state, episode_start, deterministic) -> (actions, state)``; with a method
  ``learn(total_timesteps)`` it is trained, and an attribute ``forward_passes`` says how many it has made.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from treegym.agents.registry import AGENTS
from treegym.agents.registry import make_agent as make
from treegym.errors import ConfigError, suggest
from treegym.registration import ENVS

__all__ = ["check_agent", "check_env", "make_agent"]


def check_agent(name: str, *, where: str) -> None:
    """Raises ConfigError for a name or import path that cannot be an agent; imports nothing heavy."""
    if ":" not in name:
        if name not in AGENTS:
            raise ConfigError(
                f"{where}: unknown agent {name!r}; give a registered name or an import path such as "
                f"'my_module:MyAgent'.{suggest(name, AGENTS)}"
            )
        return
    module = name.partition(":")[0]
    top = module.split(".")[0]
    try:
        found = importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise ConfigError(f"{where}: agent {name!r} names the module {top!r}, which is neither here nor installed")


def check_env(env_id: str, *, where: str) -> None:
    """Raises ConfigError for an environment id that Gymnasium does not know."""
    import gymnasium as gym

    try:
        if ":" in env_id:  # "my_module:MyEnv-v0" registers its environments when imported
            module = env_id.partition(":")[0]
            try:
                importlib.import_module(module)
            except (Exception, SystemExit) as error:
                reason = f"{type(error).__name__}: {error}"
                raise ConfigError(f"{where}: environment {env_id!r}: {module} failed to import: {reason}") from error
        gym.spec(env_id)
    except gym.error.Error as error:
        name = env_id.rpartition(":")[2]
        raise ConfigError(f"{where}: unknown environment {env_id!r}.{suggest(name, ENVS)} ({error})") from error


def make_agent(name: str, env: Any, *, seed: int, kwargs: Mapping[str, Any]) -> Any:
    """Returns an agent, made the way its kind is made.

    Args:
        name: as in a suite.
        env: a vector environment with autoreset disabled for our learners, in next-step mode for others.
        seed: the run's seed.
        kwargs: the suite's keyword arguments for the agent.
    """
    try:
        return make(name, env, seed=seed, **kwargs)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"agent {name!r} cannot be made with {dict(kwargs)}: {error}") from error
