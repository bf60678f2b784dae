"""The environment ids, one line each; entry points are strings, so registering imports nothing.

An installed package adds environments with the entry point group ``treegym.envs``, one line each
(``Maze-v0 = my_package.maze:MazeEnv``). One that is not installed is named with the module that registers it:
``my_module:MyEnv-v0``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
from typing import Any, NamedTuple

from gymnasium.envs.registration import EnvSpec, load_env_creator, register, registry
from gymnasium.envs.registration import spec as spec_of
from gymnasium.error import Error

from treegym.errors import ConfigError, suggest
from treegym.registry import refuse_hearsay

__all__ = ["ENVS", "accepts", "find_spec", "full_id", "has_native_batch", "known_envs", "register_envs"]


class Registration(NamedTuple):
    """How an id is registered with Gymnasium."""

    entry_point: str
    vector_entry_point: str
    kwargs: dict[str, object]
    summary: str


_TREE = "treegym.envs.token_tree"
_SELECTION = "treegym.envs.selection"
_COMPUTE = "treegym.envs.compute.env"

ENVS: dict[str, Registration] = {
    "TokenTree-v0": Registration(
        f"{_TREE}.env:TokenTreeEnv", f"{_TREE}.vector:TokenTreeVectorEnv", {}, "walk a tree of tokens grown by teachers"
    ),
    "MO-TokenTree-v0": Registration(
        f"{_TREE}.env:TokenTreeEnv",
        f"{_TREE}.vector:TokenTreeVectorEnv",
        {"multi_objective": True},
        "the same walk with a reward for every objective",
    ),
    "CandidateSelection-v0": Registration(
        f"{_SELECTION}.env:CandidateSelectionEnv",
        f"{_SELECTION}.env:CandidateSelectionVectorEnv",
        {},
        "choose how to optimise a PyTorch module, on recorded or live measurements",
    ),
    "MO-CandidateSelection-v0": Registration(
        f"{_SELECTION}.env:CandidateSelectionEnv",
        f"{_SELECTION}.env:CandidateSelectionVectorEnv",
        {"multi_objective": True},
        "the same choice with a reward for every objective",
    ),
    "OptimizationPipeline-v0": Registration(
        f"{_SELECTION}.env:OptimizationPipelineEnv",
        f"{_SELECTION}.env:OptimizationPipelineVectorEnv",
        {},
        "build an ensemble of optimisations, strategy by strategy",
    ),
    "TestTimeCompute-v0": Registration(
        f"{_COMPUTE}:TestTimeComputeEnv",
        f"{_COMPUTE}:TestTimeComputeVectorEnv",
        {},
        "spend tokens on a model's samples: branch, go on, probe, prune, fork, answer",
    ),
    "MO-TestTimeCompute-v0": Registration(
        f"{_COMPUTE}:TestTimeComputeEnv",
        f"{_COMPUTE}:TestTimeComputeVectorEnv",
        {"multi_objective": True},
        "the same spending with correctness and tokens apart",
    ),
    "MO-OptimizationPipeline-v0": Registration(
        f"{_SELECTION}.env:OptimizationPipelineEnv",
        f"{_SELECTION}.env:OptimizationPipelineVectorEnv",
        {"multi_objective": True},
        "the same building with a reward for every objective",
    ),
}


_MODULES: dict[str, str] = {}  # the module that an id was found in, where it was named with one


def known_envs() -> dict[str, Registration]:
    """Returns our ids and those of installed packages; a package cannot take the name of one of ours."""
    installed = {
        point.name: Registration(point.value, "", {}, f"from {point.value}")
        for point in importlib.metadata.entry_points(group="treegym.envs")
    }
    return ENVS | {name: entry for name, entry in sorted(installed.items()) if name not in ENVS}


def register_envs() -> None:
    """Registers every id with Gymnasium; calling it again changes nothing, and nothing is imported."""
    for env_id, entry in known_envs().items():
        if env_id in registry:
            continue
        with contextlib.suppress(Error):  # of an id that Gymnasium refuses, gym.make says what is wrong with it
            register(
                id=env_id,
                entry_point=entry.entry_point,
                vector_entry_point=entry.vector_entry_point or None,
                kwargs=dict(entry.kwargs),
                disable_env_checker=bool(entry.kwargs.get("multi_objective")),  # it insists on scalar rewards
            )


def find_spec(env_id: str, *, where: str = "") -> EnvSpec:
    """Returns what Gymnasium knows of an id; of ``my_module:MyEnv-v0``, the module is imported first."""
    module, separator, name = env_id.rpartition(":")
    before = f"{where}: " if where else ""
    if separator:
        refuse_hearsay(env_id, "the environment")
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # somebody else's module: whatever it raises is what is wrong with it
            reason = f"{module} failed to import: {type(error).__name__}: {error}"
            raise ConfigError(f"{before}environment {env_id!r}: {reason}") from error
    try:
        found = spec_of(name)
    except Error as error:
        hint = suggest(name, known_envs())
        raise ConfigError(f"{before}unknown environment {env_id!r}.{hint} ({error})") from error
    if separator:
        _MODULES[found.id] = module
    return found


def full_id(spec: EnvSpec) -> str:
    """Returns the name an environment is found by in another process: ``my_module:MyEnv-v0`` where it needs one."""
    entry = spec.entry_point or spec.vector_entry_point
    home = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    module = _MODULES.get(spec.id, home)
    common = module.split(".")[0] in ("gymnasium", "treegym", "__main__", "") or spec.id in known_envs()
    return spec.id if common else f"{module}:{spec.id}"


def accepts(spec: EnvSpec, keyword: str) -> bool:
    """Returns whether an environment's constructor names this keyword argument."""
    entry: Any = spec.entry_point
    if isinstance(entry, str):
        entry = load_env_creator(entry)
    if entry is None:
        return False
    known = getattr(inspect.getmodule(entry), "KEYWORDS", ())  # environments that take **settings list them here
    try:
        return keyword in known or keyword in inspect.signature(entry).parameters
    except (TypeError, ValueError):
        return keyword in known


def has_native_batch(spec: EnvSpec) -> bool:
    """Returns whether an environment steps many lanes as one batch in the way of ours: autoreset can be switched off.

    Other vector entry points (some of Gymnasium's own) know no seeds for single lanes; their single environments do.
    """
    entry: Any = spec.vector_entry_point
    if isinstance(entry, str):
        entry = load_env_creator(entry)
    if entry is None:
        return False
    return "autoreset_mode" in getattr(entry, "KEYWORDS", ()) or "autoreset_mode" in inspect.signature(entry).parameters
