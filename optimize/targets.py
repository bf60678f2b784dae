"""Finding the user's module (``"my_module:build"``, ``"file.py:build"``, ``"zoo:encoder/1"``), fresh inputs for it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from treegym.errors import ConfigError, suggest
from treegym.optimize import zoo
from treegym.optimize.guess import guessed_inputs
from treegym.optimize.strategies.base import map_tensors, tensors_of

__all__ = ["Inputs", "build_module", "fresh_inputs", "load_function", "load_module", "moved", "zoo_target"]

Inputs = Callable[[int], tuple[Any, ...]]  # seed -> fresh arguments of the module
_FEW = 8  # distinct numbers in a tensor that is a mask or a code, no signal


def load_function(target: str) -> Callable[..., Any]:
    """Returns what ``"module:name"`` or ``"file.py:name"`` names; raises ConfigError in one sentence."""
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise ConfigError(f"{target!r} names no function; expected module:function, such as my_module:build")
    try:
        module = _import_file(where) if where.endswith(".py") else _import_name(where)
    except (Exception, SystemExit) as error:  # a script that ends its process must not end this one
        raise ConfigError(f"{where!r} cannot be imported ({type(error).__name__}: {error})") from error
    if not hasattr(module, name):
        raise ConfigError(f"{where!r} has no {name!r}.{suggest(name, [n for n in dir(module) if n[0] != '_'])}")
    found = getattr(module, name)
    if not callable(found):
        raise ConfigError(f"{target!r} is a {type(found).__name__}; expected a function")
    return found


def _import_name(name: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the module usually lies where the command is run
    return importlib.import_module(name)


def _import_file(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ConfigError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and typing look their module up
    spec.loader.exec_module(module)
    return module


def zoo_target(target: str) -> tuple[str, int]:
    """Returns name and size of ``"zoo:name/size"``."""
    name, _, size = target.removeprefix("zoo:").partition("/")
    if name not in zoo.ZOO or size not in {str(one) for one in zoo.SIZES}:
        raise ConfigError(f"{target!r} is no zoo module; expected zoo:NAME/SIZE, sizes 0 to 2.{suggest(name, zoo.ZOO)}")
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


def moved(source: Any, device: torch.device) -> Inputs:
    """Returns fresh inputs of a source, on a device."""
    fresh = fresh_inputs(source)
    return lambda seed: map_tensors(fresh(seed), lambda tensor: tensor.to(device))


def fresh_inputs(source: Any) -> Inputs:
    """Returns a function from seed to fresh inputs.

    `source` is a function of a seed; or what always gives the same (a function without arguments or that ignores its
    seed, a tensor, a tuple), whose tensors are then imitated: floats keep mean and spread, whole numbers and floats of
    few values (masks) are drawn from the values that occur, flags are shuffled.
    """
    if callable(source):
        if _takes_seed(source):
            sample = _made(source, 0)
            if not _same(sample, _made(source, 1)):
                return lambda seed: _as_tuple(source(seed))
        else:
            sample = _made(source)
    else:
        sample = _as_tuple(source)
    return lambda seed: _imitate(sample, seed)


def _made(source: Callable[..., Any], *seed: int) -> tuple[Any, ...]:
    try:
        return _as_tuple(source(*seed))
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"the inputs cannot be made ({type(error).__name__}: {str(error)[:300]})") from error


def _takes_seed(function: Callable[..., Any]) -> bool:
    """Returns whether a function wants an argument; what has a default is a seed only if it is called so."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(one.kind in kinds and (one.default is one.empty or one.name == "seed") for one in parameters)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if isinstance(value, tuple):
        return value
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, Tensor):
        return (value,)
    raise ConfigError(f"inputs are a {type(value).__name__}; expected a tensor or a tuple of the module's arguments")


def _same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    """Returns whether two inputs hold the very same numbers: nothing fresh can come of measuring on them."""
    a, b = tensors_of(first), tensors_of(second)
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _imitate(sample: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
    rng = torch.Generator().manual_seed(seed)

    def fresh(x: Tensor) -> Tensor:
        flat = x.detach().reshape(-1)
        if x.numel() == 0:
            return x.clone()
        if x.is_floating_point() and (x.numel() <= 4 * _FEW or len(flat.unique()) > _FEW):
            spread = float(flat.float().std(correction=0)) if x.numel() > 1 else 1.0
            noise = torch.randn(x.shape, generator=rng) * spread + float(flat.float().mean())
            return noise.to(x.dtype).to(x.device)
        picks = torch.randint(x.numel(), (x.numel(),), generator=rng)
        if x.dtype == torch.bool:
            picks = torch.randperm(x.numel(), generator=rng)
        return flat[picks.to(x.device)].reshape(x.shape).clone()

    return tuple(map_tensors(value, fresh) for value in sample)
