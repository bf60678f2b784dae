"""Static int8 in PyTorch: layers whose inputs and weights are rounded to int8, as back ends then compute them.

    x' = scale round(x / scale)        weights: a scale per output channel; inputs: one scale, from given inputs

A layer computes in floating point here; a back end that reads the exported graph finds the int8 weights and computes
the product in int8. Which layers are worth it is measured: the error that each makes alone. Errors of different
layers are nearly independent, so their squares add up, and the layers that spend least of the limit for most of the
work are taken until it is spent (Dong et al., 2019, https://arxiv.org/abs/1905.03696, choose by curvature instead).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from treegym.optimize.compare import Comparison, leaves
from treegym.optimize.strategies.base import Arguments, Given, NotApplicable, call, map_tensors, replace

__all__ = ["RoundedLayer", "error_of", "fine_tune", "quantised"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
CALIBRATION = 16  # inputs from which ranges are taken
JUDGED = 3  # inputs on which errors are measured
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the largest number: shares that are tried as the end of the range
KEPT = 4096  # numbers of each call that ranges are fitted to
RATE = 0.01  # of Adam, falling to 0: in steps of the rounding, so that each layer moves by what its weights can show
ROOM = 0.8  # of the limit that may be spent: other inputs err more


class RoundedLayer(nn.Module):
    """A linear or convolution layer with int8 weights, whose input is rounded to int8 (to 0..255 where it has no sign).

    Args:
        layer: the layer.
        values: numbers of its inputs ``[n]``.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Module, values: Tensor) -> None:
        super().__init__()
        self.layer = copy.copy(layer)
        self.layer._parameters = {"bias": layer.bias}
        self.low, self.high = (0, 255) if bool((values >= 0).all()) else (-128, 127)
        self.input_scale = _best_scale(values, self.low, self.high)
        weight = layer.weight.detach()  # type: ignore[union-attr, operator]
        scale = weight.abs().flatten(1).amax(1).clamp_min(1e-12) / 127
        self.register_buffer("scale", scale.view(-1, *(1,) * (weight.dim() - 1)))
        self.register_buffer("weight", self._whole(weight).to(torch.int8))
        self.trained: Tensor | None = None  # the weight in floating point, while it is trained

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, self.input_scale, 0, self.low, self.high)
        weight = self.weight.to(x.dtype) * self.scale
        if self.trained is not None:
            weight = self.trained + (self._whole(self.trained) * self.scale - self.trained).detach()
        if isinstance(self.layer, nn.Linear):
            return nn.functional.linear(x, weight, self.layer.bias)
        result: Tensor = self.layer._conv_forward(x, weight, self.layer.bias)  # type: ignore[operator, union-attr]
        return result

    def train_on(self, weight: Tensor) -> list[Tensor]:
        """Lets the weight be trained, straight through the rounding; returns what an optimiser changes."""
        self.trained = weight.detach().clone().requires_grad_(True)
        bias: Any = self.layer.bias
        self.layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        return [self.trained, *(() if bias is None else (self.layer.bias,))]

    def settle(self) -> None:
        """Ends the training: what was learned is rounded."""
        if self.trained is not None:
            self.weight = self._whole(self.trained.detach()).to(torch.int8)
            self.trained = None
            self.requires_grad_(False)

    def _whole(self, weight: Tensor) -> Tensor:
        return (weight / self.scale).round().clamp(-127, 127)


def quantised(module: nn.Module, sample: Arguments, given: Given, *, every: bool, already: float = 0.0) -> nn.Module:
    """Returns a module with int8 layers: every one, or those that the limit on the error has room for.

    Args:
        module: not touched; the result shares its other layers.
        sample: of its inputs.
        given: other inputs, and the limit.
        every: whether all layers are rounded, whatever the error.
        already: the error that is made elsewhere (by bf16 between the layers).

    Raises:
        NotApplicable: if there is none.
    """
    layers = dict(_layers(module))
    if not layers:
        raise NotApplicable("no float32 linear or convolution layer")
    values, work = _seen(module, layers, given.samples(sample, CALIBRATION))
    rounded = {name: RoundedLayer(layer, values[name]) for name, layer in layers.items() if name in values}
    if every:
        return _with(module, rounded)
    samples, limit = given.samples(sample, JUDGED), ROOM * given.limit
    with _plain_attention():
        expected = _outputs(module, samples)
        spent = {}
        for name, layer in rounded.items():
            spent[name] = _error(expected, _with(module, {name: layer}), samples) ** 2
        room = limit**2 - already**2
        chosen = _within(room, spent, work)
        while chosen:
            made = _with(module, {name: rounded[name] for name in chosen})
            error = _error(expected, made, samples)
            if error**2 + already**2 <= limit**2:
                return made
            room *= 0.9 * (limit**2 - already**2) / error**2  # they add up to more than was thought
            chosen = _within(room, {name: spent[name] for name in chosen}, work)
    raise NotApplicable("every int8 layer costs more than the limit on the error allows")


def fine_tune(module: nn.Module, made: nn.Module, sample: Arguments, given: Given, *, steps: int) -> None:
    """Trains the rounded layers of `made` to give the outputs that `module` gives: quantisation-aware training.

    The gradient goes straight through the rounding of the weights and of the inputs within their range (Jacob et al.,
    2018, https://arxiv.org/abs/1712.05877); the target is the module itself, so no labels are needed. The loss is the
    squared error over each output's variance.

    Raises:
        NotApplicable: without fresh inputs to train on, or if no gradient comes through the module.
    """
    if given.inputs is None:
        raise NotApplicable("training takes a function that makes fresh inputs")
    layers = {name: layer for name, layer in made.named_modules() if isinstance(layer, RoundedLayer)}
    optimiser = torch.optim.Adam(
        {
            "params": layer.train_on(module.get_submodule(name).weight),  # type: ignore[arg-type]
            "lr": RATE * float(layer.scale.mean()),
        }
        for name, layer in layers.items()
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    inputs = given.samples(sample, steps)
    with _plain_attention():
        for arguments in inputs:
            expected = [x for _, x in leaves(call(module, map_tensors(arguments, torch.clone)))]
            with torch.enable_grad():
                got = [x for _, x in leaves(call(made, map_tensors(arguments, torch.clone)))]
                loss = sum(
                    (theirs - ours).square().mean() / ours.var().clamp_min(1e-12)
                    for ours, theirs in zip(expected, got, strict=True)
                    if theirs.requires_grad
                )
                if not isinstance(loss, Tensor):
                    raise NotApplicable("no gradient comes through the module")
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()
            schedule.step()
    for layer in layers.values():
        layer.settle()


def error_of(module: nn.Module, made: nn.Module, sample: Arguments, given: Given) -> float:
    """Returns the error of the worst output on a few of the given inputs."""
    samples = given.samples(sample, JUDGED)
    with _plain_attention():
        return _error(_outputs(module, samples), made, samples)


def _within(room: float, spent: dict[str, float], work: dict[str, float]) -> list[str]:
    """Returns the layers that do most of the work for what they spend, until the room is used up."""
    chosen = []
    for name in sorted(spent, key=lambda one: spent[one] / max(work[one], 1.0)):
        if spent[name] <= room:
            chosen.append(name)
            room -= spent[name]
    return chosen


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the layers that can be rounded; their names are those of the first place in which they are."""
    inside = {
        id(part) for part in module.modules() if isinstance(part, nn.MultiheadAttention) for part in part.modules()
    }
    for name, layer in module.named_modules():
        fits = type(layer) in LAYERS and getattr(layer, "padding_mode", "zeros") == "zeros"
        if name and fits and id(layer) not in inside and layer.weight.dtype == torch.float32:  # type: ignore[union-attr]
            yield name, layer


def _seen(
    module: nn.Module, layers: dict[str, nn.Module], samples: Sequence[Arguments]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Runs a module and returns numbers of every layer's inputs, and how many products each layer makes."""
    values: dict[str, list[Tensor]] = {}
    work: dict[str, float] = {}

    def keep(name: str, layer: nn.Module, x: Tensor, out: Tensor) -> None:
        flat = x.detach().float().reshape(-1)
        some = flat[torch.linspace(0, len(flat) - 1, min(KEPT, len(flat))).long()]
        values.setdefault(name, []).append(torch.cat([some, flat.min()[None], flat.max()[None]]))
        weight: Any = layer.weight
        work[name] = work.get(name, 0.0) + out.numel() * weight[0].numel()

    handles = [
        layer.register_forward_hook(lambda one, args, out, name=name: keep(name, one, args[0], out))
        for name, layer in layers.items()
    ]
    try:
        with _plain_attention():
            for sample in samples:
                call(module, map_tensors(sample, torch.clone))
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in values.items()}, work


def _best_scale(values: Tensor, low: int, high: int) -> float:
    """Returns the scale that leaves the smallest squared error of rounding, clipped numbers included."""
    largest = float(values.abs().max()) or 1.0
    errors = {}
    for share in CLIPS:
        scale = share * largest / high
        errors[scale] = float(
            (torch.fake_quantize_per_tensor_affine(values, scale, 0, low, high) - values).square().sum()
        )
    return min(errors, key=lambda scale: errors[scale])


def _with(module: nn.Module, rounded: dict[str, RoundedLayer]) -> nn.Module:
    """Returns a module that shares everything with the given one but the layers that are replaced."""
    made = copy.deepcopy(module, {id(x): x for x in (*module.parameters(), *module.buffers())})
    for name, layer in rounded.items():
        replace(made, name, layer)
    return made


def _outputs(module: nn.Module, samples: Sequence[Arguments]) -> list[list[tuple[str, Tensor]]]:
    with torch.no_grad():
        return [list(leaves(call(module, map_tensors(sample, torch.clone)))) for sample in samples]


def _error(expected: list[list[tuple[str, Tensor]]], made: nn.Module, samples: Sequence[Arguments]) -> float:
    comparison = Comparison()
    for ours, theirs in zip(expected, _outputs(made, samples), strict=True):
        comparison.add(ours, theirs)
    return max((one.error if one.kept else 1.0 for one in comparison.verdicts()), default=0.0)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keeps PyTorch from fusing whole transformer layers, which would pass by the layers inside."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
