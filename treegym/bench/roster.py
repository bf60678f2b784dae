"""Finding and making agents: registered names, plug-ins, import paths.

An agent is any class (or function) of one of these forms; no base class is needed:

- a Stable-Baselines3 algorithm: made as ``cls(policy, env, seed=seed, **kwargs)``;
- anything else: made as ``cls(env, seed=seed, **kwargs)`` with a Gymnasium vector environment. It needs
  ``predict(observation, state, episode_start, deterministic) -> (actions, state)``; with a method
  ``learn(total_timesteps)`` it is trained, and an attribute ``forward_passes`` says how many it has made.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

from gymnasium import spaces

from treegym.agents.registry import AGENTS
from treegym.errors import ConfigError, suggest
from treegym.registration import ENVS

__all__ = ["PLUGIN_GROUP", "check_agent", "check_env", "known_agents", "make_agent", "resolve"]

PLUGIN_GROUP = "treegym.agents"
_POLICY_ARGUMENTS = ("policy", "env")


def known_agents() -> dict[str, str]:
    """Returns every agent that has a name: name -> import path; installed plug-ins come after our own."""
    plugins = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=PLUGIN_GROUP)}
    return {**plugins, **{name: _path(value) for name, value in AGENTS.items()}}


def _path(value: Any) -> str:
    return value if isinstance(value, str) else str(value.path)


def check_agent(name: str, *, where: str) -> None:
    """Raises ConfigError for a name or import path that cannot be an agent; imports nothing heavy."""
    if ":" not in name:
        known = known_agents()
        if name not in known:
            raise ConfigError(
                f"{where}: unknown agent {name!r}; give a registered name or an import path such as "
                f"'my_module:MyAgent'.{suggest(name, known)}"
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


def resolve(name: str) -> Any:
    """Returns the class or function behind a name or import path; ConfigError says what failed."""
    path = name if ":" in name else known_agents().get(name)
    if path is None:
        raise ConfigError(f"unknown agent {name!r}.{suggest(name, known_agents())}")
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"agent {name!r} ({path}) failed to import: {reason}") from error
    return found


def make_agent(name: str, env: Any, *, seed: int, kwargs: Mapping[str, Any]) -> Any:
    """Returns an agent, made the way its kind is made.

    Args:
        name: as in a suite.
        env: a vector environment with autoreset disabled for our learners, in next-step mode for others.
        seed: the run's seed.
        kwargs: the suite's keyword arguments for the agent.
    """
    found = resolve(name)
    given = dict(kwargs)
    try:
        if is_sb3(found):
            policy = given.pop("policy", _policy(found, env))
            return found(policy, env, seed=seed, **given)
        return found(env, seed=seed, **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"agent {name!r} cannot be made with {given}: {error}") from error


def _policy(found: Any, env: Any) -> str:
    """Returns the policy that suits an environment when the suite names none."""
    if is_ours(found):
        return "ChildPolicy" if hasattr(env.unwrapped, "layout") else "MlpPolicy"
    return "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"


def is_sb3(found: Any) -> bool:
    """Returns whether an agent is made the way Stable-Baselines3's algorithms are: policy first, then env."""
    try:
        names = tuple(inspect.signature(found).parameters)[:2]
    except (TypeError, ValueError):
        return False
    return names == _POLICY_ARGUMENTS


def is_ours(found: Any) -> bool:
    """Returns whether an agent takes a native batch whose lanes rest until they are reset."""
    return any(base.__module__.startswith("treegym.agents.") for base in getattr(found, "__mro__", ()))
