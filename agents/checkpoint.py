"""Checkpoints: a zip of `data.json` and `arrays.safetensors`, written atomically. No pickle; loading executes nothing.

`data.json` holds the algorithm, its settings, the policy's name and arguments, the spaces, counters and generators;
`arrays.safetensors` the weights, the optimizer's moments and whatever else the learner remembers. What an agent is,
`agents/base.py` says; it imports this file, so here agents are seen only by their attributes.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from treegym.agents.checkpoint_file import FORMAT, KIND, read, write
from treegym.agents.policies import POLICIES, policy_class, policy_path
from treegym.agents.schema import DATA, at_most, check_arrays, check_json
from treegym.agents.spaces import space_from_json, space_to_json
from treegym.agents.state import array_of, expected_weights, within
from treegym.errors import ConfigError, DataError, TreeGymError
from treegym.registration import full_id
from treegym.registry import hearsay

__all__ = ["describe", "load", "save"]

_WEIGHTS, _STATE = "policy.", "state."


def save(agent: Any, path: Any) -> None:
    """Writes an agent; `path` gets the suffix .zip if it has none."""
    values, arrays = agent.training_state()
    data = {
        "kind": KIND,
        "format": FORMAT,
        "algorithm": type(agent).__name__,
        "policy": agent.policy_name,
        "policy_kwargs": agent.policy_kwargs,
        "settings": agent.settings_dict(),
        "functions": sorted(set(vars(agent.settings)) - set(agent.settings_dict())),
        "seed": agent.seed,
        "spaces": [space_to_json(agent.observation_space), space_to_json(agent.action_space)],
        "env": _env_of(agent),
        "counters": {
            "num_timesteps": agent.num_timesteps,
            "total_timesteps": agent._total_timesteps,
            "episodes": agent._episode_num,
            "iteration": agent.iteration,
            "updates": agent._n_updates,
        },
        "log": {
            "episodes": list(agent.ep_info_buffer or ()),
            "successes": list(agent.ep_success_buffer or ()),
            "window": agent._stats_window_size,
        },
        "rng": agent.rng.bit_generator.state,
        "state": values,
    }
    weights = {f"{_WEIGHTS}{name}": array_of(tensor) for name, tensor in agent.policy.state_dict().items()}
    try:
        text = json.dumps(data, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"this agent cannot be saved: its policy_kwargs must be JSON values ({error})") from error
    if agent.processes.rank == 0:
        write(path, text, weights | {f"{_STATE}{name}": np.asarray(array) for name, array in arrays.items()})


def describe(path: Any) -> dict[str, Any]:
    """Returns what a checkpoint says of itself: algorithm, settings, env, counters."""
    data = read(path)[0]
    check_json(data, DATA, str(path))
    return data


def load(cls: type[Any], path: Any, *, env: Any, device: Any, overrides: dict[str, Any]) -> Any:
    """Returns the agent a checkpoint holds."""
    data, arrays = read(path)
    if data.get("algorithm") != cls.__name__:
        raise ConfigError(
            f"{path} holds a {data.get('algorithm')}, not a {cls.__name__}; load it with {data.get('algorithm')}.load"
        )
    check_json(data, DATA, str(path))
    own = {name: value for name, value in data["settings"].items() if name not in overrides}
    with hearsay(str(path), [own, data["policy_kwargs"]]):
        return _loaded(cls, path, data, arrays, env, device, overrides)


def _loaded(
    cls: type[Any],
    path: Any,
    data: dict[str, Any],
    arrays: dict[str, np.ndarray],
    env: Any,
    device: Any,
    overrides: dict[str, Any],
) -> Any:
    settings = cls.settings_class.of(cls.__name__, {**data["settings"], **_switches(overrides)})
    # outside of what is taken for damage: what is wrong with the environment is not the file's fault
    world = None if env is None else cls.world_of(env, settings)
    try:
        return _rebuild(cls, path, data, arrays, env, world, device, overrides)
    except TreeGymError:
        raise
    except Exception as error:
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path}: its content does not fit a {cls.__name__} ({first}); the file is damaged") from error


_OWN = ("verbose", "tensorboard_log")  # what `load` takes that is neither a switch nor the file's


def _switches(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in overrides.items() if name not in (*_OWN, "policy", "seed", "policy_kwargs")}


def _rebuild(
    cls: type[Any],
    path: Any,
    data: dict[str, Any],
    arrays: dict[str, np.ndarray],
    env: Any,
    world: Any,
    device: Any,
    overrides: dict[str, Any],
) -> Any:
    spaces = _spaces(path, data, world)
    made = {"seed": data["seed"], **data["policy_kwargs"]}
    again = {"seed": overrides.pop("seed", data["seed"]), **(overrides.pop("policy_kwargs", None) or {})}
    for name, value in again.items():
        if name not in made or made[name] != value:
            kept = repr(made.get(name, "no such value"))
            raise ConfigError(f"{path}: it was made with {name}={kept}, which stays; got {value!r}: leave it out")
    for name in data["functions"]:
        if name not in overrides:
            raise ConfigError(f"{path}: {name} was a Python function, which a checkpoint cannot hold: pass {name}=...")
    policy = _policy_of(path, data["policy"], overrides.get("policy"))
    # A file may name a model of a hub; only what lies on this machine already is loaded for it.
    here = {"local_files_only": True} if getattr(policy_class(policy), "loads_models", False) else {}
    weights = within(arrays, _WEIGHTS)
    with at_most(16 * sum(array.size for array in weights.values()) + 2**22, str(path)):
        agent = cls(
            policy,
            world,
            policy_kwargs={**data["policy_kwargs"], **here},
            seed=data["seed"],
            device=device,
            stats_window_size=data["log"]["window"],
            _spaces=spaces,
            **{name: overrides[name] for name in _OWN if name in overrides},
            **{**data["settings"], **_switches(overrides)},
        )
    agent.policy_kwargs = {name: value for name, value in agent.policy_kwargs.items() if name not in here}
    if env is not None:
        agent.stands_in(env, agent.env)
    if agent.processes.sharded:
        raise ConfigError(f"{path}: a checkpoint cannot be taken up in shards; launch without FSDP, or start anew")
    check_arrays(weights, expected_weights(agent.policy), f"{path}: its policy")
    agent.policy.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    counters = data["counters"]
    agent.num_timesteps = counters["num_timesteps"]
    agent._total_timesteps = counters["total_timesteps"]
    agent._episode_num, agent.iteration = counters["episodes"], counters["iteration"]
    agent._n_updates = counters["updates"]
    agent.ep_info_buffer = deque(data["log"]["episodes"], maxlen=agent._stats_window_size)
    agent.ep_success_buffer = deque(data["log"]["successes"], maxlen=agent._stats_window_size)
    agent.rng.bit_generator.state = data["rng"]
    agent.rng = agent.processes.generator(agent.rng)
    agent.set_training_state(data["state"], within(arrays, _STATE))
    return agent


def _spaces(path: Any, data: dict[str, Any], world: Any) -> tuple[Any, Any]:
    """Returns the spaces: those of the world, if they are described so; else they are made from the description."""
    if world is None:
        first, second = map(space_from_json, data["spaces"])
        return first, second
    found = (world.observation_space, world.action_space)
    for described, theirs, what in zip(data["spaces"], found, ("observation", "action"), strict=True):
        if described != json.loads(json.dumps(space_to_json(theirs))):
            raise ConfigError(
                f"{path} was trained in another environment ({data['env'] or 'unnamed'}): its {what} space differs"
            )
    return found


def _policy_of(path: Any, stored: str, given: Any) -> Any:
    """Returns the policy of a checkpoint; what the file names is not imported on its word alone."""
    if given is not None:
        if policy_path(given) != policy_path(stored):
            raise ConfigError(f"{path}: it was made with the policy {stored!r}, which stays; got {given!r}")
        return given
    if ":" not in stored:
        return stored
    for name in POLICIES:
        if POLICIES.path_of(name) == stored:
            return policy_class(name)
    raise ConfigError(
        f"{path} uses the policy class {stored!r}, which a file cannot make us import: name it yourself "
        f"(policy={stored!r}), or register it in treegym.agents.policies.POLICIES"
    )


def _env_of(agent: Any) -> dict[str, Any] | None:
    """Returns the environment's id and arguments, as far as they can be written."""
    spec = getattr(agent.world.env, "spec", None) if agent.world is not None else None
    if spec is None:
        return None
    skip = {"vectorization_mode", "num_envs", "autoreset_mode", "vector_kwargs", "wrappers", "render_mode"}
    kwargs = {key: value for key, value in spec.kwargs.items() if key not in skip}
    try:
        return json.loads(json.dumps({"id": full_id(spec), "kwargs": kwargs}))
    except (TypeError, ValueError):
        return {"id": full_id(spec), "kwargs": {}}
