"""Checkpoints: a zip of `data.json` and `arrays.safetensors`, written atomically. No pickle; loading executes nothing.

`data.json` holds the algorithm, its settings, the policy's name and arguments, the spaces, counters and generators;
`arrays.safetensors` the weights, the optimizer's moments and whatever else the learner remembers. What an agent is,
`agents/base.py` says; it imports this file, so here agents are seen only by their attributes.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treegym.agents.play.worlds import make_world
from treegym.agents.policies import POLICIES, policy_class, policy_path
from treegym.agents.spaces import space_from_json, space_to_json
from treegym.agents.state import array_of, within
from treegym.errors import ConfigError, DataError, TreeGymError
from treegym.files import atomic_write, read_arrays, write_arrays
from treegym.registration import full_id

__all__ = ["describe", "load", "save"]

FORMAT = 1
KIND = "treegym-agent"
_STAMP = (2020, 1, 1, 0, 0, 0)  # one date for all, so that equal states give equal files
_WEIGHTS, _STATE = "policy.", "state."
_LIMIT = 2**34  # bytes of one member: what is larger is no checkpoint of ours


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
        _write(path, text, weights | {f"{_STATE}{name}": np.asarray(array) for name, array in arrays.items()})


def _write(path: Any, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        member = Path(folder) / "arrays.safetensors"
        write_arrays(member, arrays)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(zipfile.ZipInfo("data.json", _STAMP), text)
            archive.writestr(zipfile.ZipInfo("arrays.safetensors", _STAMP), member.read_bytes())
    if hasattr(path, "write"):
        path.write(buffer.getvalue())
        return
    final = _with_suffix(Path(path))
    final.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(final, buffer.getvalue())


def read(path: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the JSON and the arrays of a checkpoint, or raises DataError in one sentence."""
    file = path if hasattr(path, "read") else _existing(Path(path))
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
            if not {"data.json", "arrays.safetensors"} <= names:
                hint = " (an SB3 checkpoint? those hold pickles, which are not read here)" if "data" in names else ""
                raise DataError(f"{path}: not a TreeGym checkpoint: it lacks data.json or arrays.safetensors{hint}")
            for name in ("data.json", "arrays.safetensors"):
                if archive.getinfo(name).file_size > _LIMIT:
                    raise DataError(f"{path}: its member {name} is implausibly large; the file is damaged")
            text = archive.read("data.json")
            with tempfile.TemporaryDirectory() as folder:
                member = Path(folder) / "arrays.safetensors"
                member.write_bytes(archive.read("arrays.safetensors"))
                arrays, _ = read_arrays(member, mmap=False)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable checkpoint ({error}); the file is damaged") from error
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: its data.json is not valid JSON; the file is damaged") from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise DataError(f"{path}: not a TreeGym checkpoint (its kind is {str(data)[:40]!r})")
    if data.get("format") != FORMAT:
        raise DataError(
            f"{path}: checkpoint format {data.get('format')!r}; this version reads format {FORMAT}: use the version "
            "of TreeGym that wrote it"
        )
    return data, arrays


def describe(path: Any) -> dict[str, Any]:
    """Returns what a checkpoint says of itself: algorithm, settings, env, counters."""
    return read(path)[0]


def load(cls: type[Any], path: Any, *, env: Any, device: Any, overrides: dict[str, Any]) -> Any:
    """Returns the agent a checkpoint holds."""
    data, arrays = read(path)
    if data.get("algorithm") != cls.__name__:
        raise ConfigError(
            f"{path} holds a {data.get('algorithm')}, not a {cls.__name__}; load it with {data.get('algorithm')}.load"
        )
    settings = data.get("settings")
    if not isinstance(settings, dict):
        raise DataError(f"{path}: its settings are {str(settings)[:40]!r}; the file is damaged")
    # outside of what is taken for damage: what is wrong with the environment is not the file's fault
    world = None if env is None else make_world(env, num_envs=overrides.get("n_envs", settings.get("n_envs")))
    try:
        return _rebuild(cls, path, data, arrays, env, world, device, overrides)
    except TreeGymError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: its content does not fit a {cls.__name__} ({first}); the file is damaged") from error


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
    spaces = tuple(space_from_json(value) for value in data["spaces"])
    if world is not None:
        for ours, theirs, what in zip(
            spaces, (world.observation_space, world.action_space), ("observation", "action"), strict=True
        ):
            if ours != theirs:
                raise ConfigError(
                    f"{path} was trained in another environment ({data['env'] or 'unnamed'}): its {what} space differs"
                )
    made = {"seed": data["seed"], **data["policy_kwargs"]}
    again = {"seed": overrides.pop("seed", data["seed"]), **(overrides.pop("policy_kwargs", None) or {})}
    for name, value in again.items():
        if name not in made or made[name] != value:
            kept = repr(made.get(name, "no such value"))
            raise ConfigError(f"{path}: it was made with {name}={kept}, which stays; got {value!r}: leave it out")
    own = {name: overrides.pop(name) for name in ("verbose", "tensorboard_log") if name in overrides}
    policy = _policy_of(path, data["policy"], overrides.pop("policy", None))
    settings = {**data["settings"], **overrides}
    for name in data["functions"]:
        if name not in overrides:
            raise ConfigError(f"{path}: {name} was a Python function, which a checkpoint cannot hold: pass {name}=...")
    agent = cls(
        policy,
        world,
        policy_kwargs=data["policy_kwargs"],
        seed=data["seed"],
        device=device,
        stats_window_size=data["log"]["window"],
        _spaces=spaces,
        **own,
        **settings,
    )
    if env is not None:
        agent.stands_in(env, agent.env)
    if agent.processes.sharded:
        raise ConfigError(f"{path}: a checkpoint cannot be taken up in shards; launch without FSDP, or start anew")
    weights = within(arrays, _WEIGHTS)
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


def _with_suffix(path: Path) -> Path:
    return path if path.suffix else path.with_suffix(".zip")


def _existing(path: Path) -> Path:
    for candidate in (path, _with_suffix(path)):
        if candidate.is_file():
            return candidate
    raise DataError(f"{path}: there is no such checkpoint")
