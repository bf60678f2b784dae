"""Inputs for a module that came without any: what its layers take is tried, in order, until the module runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from treegym.errors import ConfigError
from treegym.optimize.candidates import copied

__all__ = ["guessed_inputs"]

Shape = tuple[int, ...]
_BATCH, _LENGTHS, _SIDES = 4, (32, 8, 128), (32, 64, 224, 28)


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
