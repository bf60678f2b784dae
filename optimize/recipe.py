"""Keeping a winner: its state dict as safetensors, and a short Python file that rebuilds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from treegym.errors import ConfigError, DataError, require
from treegym.files import atomic_path, atomic_write
from treegym.optimize.candidates import Candidate, apply, parse
from treegym.optimize.targets import load_module

__all__ = ["rebuild", "save_recipe"]

_TEMPLATE = '''"""Rebuilds the optimised module: {name}. Written by `treegym optimize`.

Measured: {summary}.
"""

import sys
from pathlib import Path

from treegym.optimization import rebuild

sys.path.insert(0, {folder!r})  # what is imported by name lay here
TARGET = {target!r}
INPUTS = {inputs!r}
CANDIDATE = {candidate!r}
WEIGHTS = Path(__file__).with_name({weights!r})


def build():
    """Returns the optimised module in evaluation mode, with the weights that were measured."""
    return rebuild(TARGET, INPUTS, CANDIDATE, WEIGHTS)


if __name__ == "__main__":
    print(build())
'''


def save_recipe(
    folder: Path, *, original: nn.Module, target: str, inputs: str | None, result: dict[str, Any]
) -> list[Path]:
    """Writes ``weights.safetensors``, ``recipe.py`` and ``result.json``; returns their paths.

    The weights are the original module's: the strategies are applied to them again when the recipe is run, which gives
    the optimised module bit for bit, whatever number format its packed weights are in.
    """
    safetensors = require("safetensors.torch", extra="selection", purpose="keeping the winner")
    folder.mkdir(parents=True, exist_ok=True)
    weights, recipe, figures = folder / "weights.safetensors", folder / "recipe.py", folder / "result.json"
    with atomic_path(weights) as temporary:
        safetensors.save_file(_distinct(original.state_dict()), str(temporary))
    metrics = result["performance_metrics"]
    summary = (
        f"{metrics['speed_improvement']['value']:.2f}x speed, {metrics['memory_efficiency']['value']:.2f}x memory, "
        f"output error {metrics['output_error']:.5f}"
    )
    text = _TEMPLATE.format(
        name=result["selected_strategy"], summary=summary, target=_findable(target), folder=str(Path.cwd()),
        inputs=None if inputs is None else _findable(inputs), candidate=result["selected_strategy"],
        weights=weights.name,
    )  # fmt: skip
    atomic_write(recipe, text)
    atomic_write(figures, json.dumps(result, indent=1))
    return [weights, recipe, figures]


def rebuild(target: str, inputs: str | None, candidate: str, weights: str | Path) -> nn.Module:
    """Builds the module a target names, loads the weights and applies a candidate's strategies."""
    safetensors = require("safetensors.torch", extra="selection", purpose="loading the winner")
    module, source = load_module(target, inputs)
    try:
        state = safetensors.load_file(str(weights))
        missing, unexpected = module.load_state_dict(state, strict=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{weights}: the weights do not fit {target!r} ({str(error)[:200]})") from error
    shared = set(module.state_dict()) - set(_distinct(module.state_dict()))
    if unexpected or set(missing) - shared:
        raise DataError(f"{weights}: the weights are of another module than {target!r} ({missing}, {unexpected})")
    parsed: Candidate = parse(candidate)
    return apply(module.eval(), parsed, source(0))


def _findable(target: str) -> str:
    """Returns a target whose file, if it names one, is found from any working directory."""
    where, _, name = target.rpartition(":")
    return f"{Path(where).resolve()}:{name}" if where.endswith(".py") else target


def _distinct(state: dict[str, Any]) -> dict[str, Tensor]:
    """Returns the tensors of a state dict, tied weights once (safetensors stores no shared memory)."""
    kept: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size, int]] = set()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ConfigError(f"the module's state holds {name!r}, a {type(value).__name__}, which cannot be stored")
        key = (value.data_ptr(), value.shape, value.storage_offset())
        if key not in seen or value.numel() == 0:
            seen.add(key)
            kept[name] = value.detach().contiguous().clone()
    return kept
