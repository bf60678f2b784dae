"""The tensors of a module in a file, wherever the module keeps them, and a fingerprint of its outputs.

A file holds every tensor that `held_tensors` reaches (packed quantised weights in their parts), a sample of the inputs
where that is not large, and numbers of the outputs on it: whoever fills a module from the file checks that it gives
those again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from treegym.errors import DataError, require
from treegym.files import atomic_path, read_header
from treegym.optimize.compare import leaves
from treegym.optimize.engines import Engine, Files, check_digests, digests
from treegym.optimize.held import held_tensors
from treegym.optimize.strategies.base import Arguments, call, map_tensors, tensors_of

__all__ = ["Stored", "Unstorable", "check", "fill", "open_stored", "store", "with_sample"]

FORMAT = "2"
SAMPLE_BYTES = 16 * 2**20  # larger inputs are made again by their function
NUMBERS = 64  # of each output are kept
CLOSE = 0.02  # of their spread: processors round differently, other weights differ by more
_TENSOR, _SAMPLE, _OUTPUT, _PROGRAM = "tensor:", "sample:", "output:", "program:"


class Unstorable(Exception):
    """A module holds something that cannot be stored and put back; the message names it."""


class Stored(NamedTuple):
    """What a file holds."""

    holds: str  # the tensors of the "optimised"; of the "original", where the strategies are applied again; a "program"
    tensors: dict[str, Tensor]
    sample: list[Tensor]  # the tensors of the sample inputs; empty: not kept
    outputs: dict[str, Tensor]  # some numbers of each output on the sample
    program: Files  # of a back end ("program"); empty: none


def store(path: Path, module: nn.Module, sample: Arguments, outputs_of: nn.Module, *, holds: str) -> None:
    """Writes a module's tensors, the sample and the outputs of `outputs_of` on it.

    Raises:
        Unstorable: for tensors of a kind that the file format does not have.
    """
    safetensors = require("safetensors.torch", extra="selection", purpose="keeping the winner")
    about = {"format": FORMAT, "holds": holds}
    if isinstance(module, Engine):
        program = module.files()
        parts = {
            f"{_PROGRAM}{name}": torch.frombuffer(bytearray(data), dtype=torch.uint8) for name, data in program.items()
        }
        about |= {"holds": "program"} | {f"{_PROGRAM}{name}": digest for name, digest in digests(program).items()}
    else:
        parts = {f"{_TENSOR}{name}": tensor for name, tensor in _plain(module)}
    inputs = tensors_of(sample)
    if sum(x.numel() * x.element_size() for x in inputs) <= SAMPLE_BYTES:
        parts |= {f"{_SAMPLE}{i:03d}": x for i, x in enumerate(inputs)}
    parts |= {f"{_OUTPUT}{name}": numbers for name, numbers in _fingerprint(outputs_of, sample).items()}
    data = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in parts.items()}
    with atomic_path(path) as temporary:
        safetensors.save_file(data, str(temporary), metadata=about)


def open_stored(path: Path) -> Stored | None:
    """Returns what a file holds; None for one of the first format, which is a plain state dict."""
    safetensors = require("safetensors", extra="selection", purpose="loading the winner")
    try:
        read_header(path)  # bounded, as safetensors' own reading of it is not
        with safetensors.safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            data = {name: file.get_tensor(name) for name in sorted(file.keys())} if "holds" in about else {}
    except (OSError, DataError, safetensors.SafetensorError) as error:
        raise DataError(f"{path}: the weights cannot be read ({str(error)[:200]})") from error
    if "holds" not in about:
        return None
    if about.get("format") != FORMAT:
        raise DataError(f"{path}: format {about.get('format')!r}; this release reads format {FORMAT}")

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in data.items() if name.startswith(prefix)}

    program = {name: tensor.numpy().tobytes() for name, tensor in part(_PROGRAM).items()}
    if about["holds"] == "program":
        check_digests(program, {name: about.get(f"{_PROGRAM}{name}", "") for name in program}, path)
    return Stored(about["holds"], part(_TENSOR), list(part(_SAMPLE).values()), part(_OUTPUT), program)


def fill(module: nn.Module, stored: Stored, path: Path) -> None:
    """Puts stored tensors where a module holds them; raises DataError unless they are the same in number and form."""
    packed = dict(_packed(module))
    places = {name: tensor for name, tensor in _plain(module) if "#" not in name}
    wanted = {name for name in stored.tensors if "#" not in name}
    if wanted != places.keys() or {name.partition("#")[0] for name in stored.tensors if "#" in name} != packed.keys():
        other = sorted(wanted ^ places.keys())[:2] or ["packed weights"]
        raise DataError(f"{path}: the weights are of another module ({', '.join(other)} has no counterpart)")
    with torch.no_grad():
        for name, place in places.items():
            tensor = stored.tensors[name]
            if tensor.shape != place.shape or tensor.dtype != place.dtype:
                form = f"{tensor.dtype} {list(tensor.shape)} for {place.dtype} {list(place.shape)}"
                raise DataError(f"{path}: the weights do not fit ({name}: {form})")
            if not torch.equal(tensor.to(place.device), place.detach()):
                place.data.copy_(tensor)
        for name, layer in packed.items():
            _check_packed(layer, stored.tensors, name, path)
            layer.set_weight_bias(_quantised(stored.tensors, name), stored.tensors.get(f"{name}#bias"))


def check(module: nn.Module, sample: Arguments, stored: Stored, path: Path) -> None:
    """Raises DataError unless a module gives the outputs that were stored."""
    found = _fingerprint(module, sample)
    for name, numbers in stored.outputs.items():
        got = found.get(name)
        if got is None or got.shape != numbers.shape or not _alike(numbers, got):
            raise DataError(
                f"{path}: the rebuilt module's output {name.partition('@')[0]!r} is not the one that was measured; "
                "something it depends on is not stored (a global variable, a file) or has changed since"
            )


def with_sample(arguments: Arguments, stored: Stored) -> Arguments:
    """Returns arguments with the stored sample's tensors in their places, where one was kept."""
    own = tensors_of(arguments)
    if not stored.sample or [(x.shape, x.dtype) for x in own] != [(x.shape, x.dtype) for x in stored.sample]:
        return arguments
    device = tensors_of(arguments)[0].device
    waiting = iter(stored.sample)
    filled: Arguments = map_tensors(arguments, lambda _: next(waiting).to(device))
    return filled


def _plain(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields tensors that a file can hold, by where the module keeps them; quantised ones as ``name#part``."""
    packed = dict(_packed(module))
    for name, tensor in held_tensors(module):
        if any(name.startswith(f"{owner}.") for owner in packed):
            continue
        if tensor.is_quantized or tensor.is_sparse or type(tensor) not in (Tensor, nn.Parameter):
            raise Unstorable(f"{name} is a {type(tensor).__name__} of a kind that cannot be stored")
        yield name, tensor
    for name, layer in packed.items():
        weight, bias = layer._weight_bias()
        yield f"{name}#weight", weight.int_repr()
        yield f"{name}#scales", weight.q_per_channel_scales()
        yield f"{name}#zeros", weight.q_per_channel_zero_points()
        if bias is not None:
            yield f"{name}#bias", bias


def _packed(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, layer in module.named_modules():
        if type(layer).__name__ == "LinearPackedParams":
            if layer._weight_bias()[0].qscheme() != torch.per_channel_affine:
                raise Unstorable(f"{name} has one scale for all channels, which cannot be stored")
            yield name, layer


def _check_packed(layer: Any, tensors: dict[str, Tensor], name: str, path: Path) -> None:
    """Raises DataError unless the parts of packed weights have the form of the layer's own: torch compares none."""
    weight, bias = layer._weight_bias()
    scales, zeros = weight.q_per_channel_scales(), weight.q_per_channel_zero_points()
    for part, place in {"weight": weight.int_repr(), "scales": scales, "zeros": zeros, "bias": bias}.items():
        found = tensors.get(f"{name}#{part}")
        if (found is None) != (place is None):
            raise DataError(f"{path}: the weights do not fit ({name}: its {part} is missing, or one too many)")
        if found is not None and (found.shape != place.shape or found.dtype != place.dtype):
            raise DataError(f"{path}: the weights do not fit ({name}: its {part} has another form)")


def _quantised(tensors: dict[str, Tensor], name: str) -> Tensor:
    scales, zeros = tensors[f"{name}#scales"], tensors[f"{name}#zeros"]
    made: Tensor = torch._make_per_channel_quantized_tensor(tensors[f"{name}#weight"], scales, zeros, 0)
    return made


def _fingerprint(module: nn.Module, sample: Arguments) -> dict[str, Tensor]:
    """Returns some numbers of each output, evenly spaced, under its name and shape."""
    with torch.inference_mode():
        found = {}
        for name, tensor in leaves(call(module, map_tensors(sample, torch.clone))):
            flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)
            where = torch.linspace(0, max(0, flat.numel() - 1), min(NUMBERS, flat.numel()), device=flat.device).long()
            exact = torch.float64 if flat.is_floating_point() else torch.int64
            found[f"{name}@{json.dumps(list(tensor.shape))}"] = flat[where].to(exact).cpu()
    return found


def _alike(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    finite = a.isfinite()
    if not torch.equal(a[~finite].nan_to_num(nan=0.5), b[~finite].nan_to_num(nan=0.5)):
        return False
    a, b = a[finite], b[finite]
    spread = float((a - a.mean()).norm()) if len(a) else 0.0
    return not len(a) or float((a - b).norm()) <= CLOSE * spread + 1e-5 * float(a.norm())
