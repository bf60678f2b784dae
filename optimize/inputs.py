"""Fresh inputs of a module, by seed: the user's own, imitations of a sample, or what its layers let one guess.

Inputs are the module's arguments: a tuple in their order, or a mapping by their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from treegym.errors import ConfigError
from treegym.optimize.candidates import copied
from treegym.optimize.strategies.base import Arguments, map_tensors, tensors_of

__all__ = ["Inputs", "fresh_inputs", "guessed_inputs", "moved"]

Inputs = Callable[[int], Arguments]  # seed -> fresh arguments of the module
Shape = tuple[int, ...]
_FEW = 8  # a tensor of so few distinct numbers is a mask or a code, not a signal
_BATCH, _LENGTHS, _SIDES = 4, (32, 8, 128), (32, 64, 224, 28)


def fresh_inputs(source: Any) -> Inputs:
    """Returns a function from seed to fresh inputs.

    `source` is a function of a seed; or what always gives the same (a function without arguments or that ignores its
    seed, a tensor, a tuple, a dict), whose tensors are then imitated: floats keep mean and spread, whole numbers and
    floats of few values (masks) are drawn from the values that occur, flags are shuffled. Of several sets of arguments
    (a list of tuples or dicts, of any shapes) seeds take turns.
    """
    if callable(source):
        if _takes_seed(source):
            samples = _made(source, 0)
            if not _same(samples, _made(source, 1)):
                return lambda seed: _of(_made(source, seed), seed)
        else:
            samples = _made(source)
    else:
        samples = _arguments(source)
    return lambda seed: _imitate(_of(samples, seed), seed)


def _of(samples: list[Arguments], seed: int) -> Arguments:
    return samples[seed % len(samples)]


def moved(source: Any, device: torch.device) -> Inputs:
    """Returns fresh inputs of a source, on a device."""
    fresh = fresh_inputs(source)
    return lambda seed: map_tensors(fresh(seed), lambda tensor: tensor.to(device))  # type: ignore[no-any-return]


def _made(source: Callable[..., Any], *seed: int) -> list[Arguments]:
    try:
        return _arguments(source(*seed))
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


def _arguments(value: Any) -> list[Arguments]:
    """Returns arguments: one set of them, or several (of different shapes) where a list of tuples or dicts came."""
    if isinstance(value, list) and value and all(isinstance(one, tuple | dict) for one in value):
        return list(value)
    if isinstance(value, tuple | list):
        return [tuple(value)]
    if isinstance(value, Tensor):
        return [(value,)]
    if isinstance(value, Mapping):
        return [dict(value)]
    raise ConfigError(
        f"inputs are a {type(value).__name__}; expected a tensor, a tuple of the module's arguments, a dict of named "
        "ones, or a list of such tuples or dicts"
    )


def _same(first: Any, second: Any) -> bool:
    """Returns whether two inputs hold the very same numbers: nothing fresh can come of measuring on them."""
    a, b = tensors_of(first), tensors_of(second)
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _imitate(sample: Arguments, seed: int) -> Arguments:
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

    imitated: Arguments = map_tensors(sample, fresh)
    return imitated


def guessed_inputs(module: nn.Module) -> Callable[[int], tuple[Tensor, ...]]:
    """Returns a function from seed to fresh inputs on which the module runs.

    Raises:
        ConfigError: if nothing that was tried runs; the message says how to pass inputs.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    if _required(module) <= 1:
        trial = copied(module)
        for highest, shape in _guesses(trial):
            source = _source(highest, shape, device)
            if _runs(trial, source(0)):
                return source
    raise ConfigError(
        "the module needs inputs to be measured on, and none could be guessed from its layers: pass inputs= (a tensor, "
        "a tuple of arguments, or a function of a seed; --input module:function on the command line), or give the "
        "module an attribute example_inputs"
    )


def _required(module: nn.Module) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(module.forward).parameters.values()
    return sum(one.kind in kinds and one.default is one.empty for one in parameters)


def _guesses(module: nn.Module) -> Iterator[tuple[int, Shape]]:
    """Yields shapes, each with the number of token ids (0: floats), as the layers take them, the first layer first."""
    for layer in module.modules():
        if isinstance(layer, nn.Embedding):
            yield from ((layer.num_embeddings, (_BATCH, length)) for length in _LENGTHS)
        elif isinstance(layer, nn.Linear):
            yield 0, (4 * _BATCH, layer.in_features)
            yield from ((0, (_BATCH, length, layer.in_features)) for length in _LENGTHS)
        elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            sides = len(layer.kernel_size)
            yield from ((0, (_BATCH, layer.in_channels, *(side,) * sides)) for side in _SIDES[: 2 if sides == 3 else 4])
        elif isinstance(layer, (nn.LSTM, nn.GRU, nn.RNN)):
            yield from ((0, (_BATCH, length, layer.input_size)) for length in _LENGTHS)
        elif isinstance(layer, nn.LayerNorm):
            yield 0, (_BATCH, _LENGTHS[0], *layer.normalized_shape)


def _source(highest: int, shape: Shape, device: torch.device) -> Callable[[int], tuple[Tensor, ...]]:
    def fresh(seed: int) -> tuple[Tensor, ...]:
        rng = torch.Generator().manual_seed(seed)
        x = torch.randint(highest, shape, generator=rng) if highest else torch.randn(shape, generator=rng)
        return (x.to(device),)

    return fresh


def _runs(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    try:
        with torch.no_grad():
            module(*inputs)
    except Exception:  # noqa: BLE001 - the user's forward on a guess: whatever it raises, the guess was wrong
        return False
    return True
