"""Finding the user's module: ``"my_module:build"``, ``"file.py:build"`` or ``"zoo:encoder/1"``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from treegym.errors import ConfigError, suggest
from treegym.optimize import zoo
from treegym.optimize.inputs import Inputs, fresh_inputs, guessed_inputs
from treegym.registry import resolve

__all__ = ["build_module", "load_function", "load_module", "registry_targets", "zoo_target"]

INSIDE = "#"  # between the target of a registry and the name of one of its entries


def load_function(target: str) -> Callable[..., Any]:
    """Returns what ``"module:name"`` or ``"file.py:name"`` names; raises ConfigError in one sentence."""
    found = _found(target)
    if not callable(found):
        raise ConfigError(f"{target!r} is a {type(found).__name__}; expected a function")
    return found  # type: ignore[no-any-return]


def _found(target: str) -> Any:
    registry, inside, key = target.partition(INSIDE)
    if inside:
        held = _found(registry)
        return (held() if callable(held) else held)[key]
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise ConfigError(f"{target!r} names no function; expected module:function, such as my_module:build")
    if where.endswith(".py"):
        return resolve(f"{_import_file(where)}:{name}", repr(target))
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the module usually lies where the command is run
    return resolve(target, repr(target))


def _import_file(path: str) -> str:
    """Imports a file under its own name, by which dataclasses and typing look it up; returns the name."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ConfigError(f"{path!r} cannot be imported: there is no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends its process must not end this one
        del sys.modules[spec.name]
        raise ConfigError(f"{path!r} cannot be imported ({type(error).__name__}: {error})") from error
    return spec.name


def registry_targets(target: str) -> dict[str, str]:
    """Returns the targets of a registry by name.

    A registry is a mapping of names to build functions or to their targets, or a function that returns one
    (``treegym.optimization:get_all_models``). Functions are named by where they lie in it: ``"registry:name"``.
    """
    found = _found(target)
    found = found() if callable(found) else found
    if not isinstance(found, Mapping):
        raise ConfigError(f"{target!r} is a {type(found).__name__}; expected a mapping of names to build functions")
    return {str(name): one if isinstance(one, str) else f"{target}{INSIDE}{name}" for name, one in found.items()}


def zoo_target(target: str) -> tuple[str, int]:
    """Returns name and size of ``"zoo:name/size"``."""
    name, _, size = target.removeprefix("zoo:").partition("/")
    if name not in zoo.ZOO or size not in {str(one) for one in zoo.SIZES}:
        hint = suggest(name, zoo.ZOO)
        raise ConfigError(f"{target!r} is not a zoo module; expected zoo:NAME/SIZE, sizes 0 to 2.{hint}")
    return name, int(size)


def load_module(target: str, inputs: str | None = None) -> tuple[nn.Module, Inputs]:
    """Builds the module a target names and finds its inputs; the module is in evaluation mode."""
    if target.startswith("zoo:"):
        name, size = zoo_target(target)
        return zoo.build(name, size), lambda seed: zoo.inputs(name, size, seed)
    module = build_module(target)
    if inputs is not None:
        return module.eval(), fresh_inputs(load_function(inputs))
    example = getattr(module, "example_inputs", None)
    return module.eval(), guessed_inputs(module) if example is None else fresh_inputs(example)


def build_module(build: Callable[[], nn.Module] | str) -> nn.Module:
    """Returns what a build function makes; raises ConfigError where it fails or makes no module."""
    name = build if isinstance(build, str) else getattr(build, "__name__", "build")
    function = load_function(build) if isinstance(build, str) else build
    try:
        module = function()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{name}() failed ({type(error).__name__}: {error})") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{name}() returned {type(module).__name__}; expected a torch.nn.Module")
    return module
