"""Keeping a winner: every tensor it holds as safetensors, and a short Python file that rebuilds it and checks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from treegym.errors import DataError, TreeGymError, require
from treegym.files import atomic_write
from treegym.optimize.candidates import Candidate, apply, copied, parse
from treegym.optimize.engines import BackEnd
from treegym.optimize.placing import finish
from treegym.optimize.stored import Stored, check, fill, open_stored, store, with_sample
from treegym.optimize.strategies import load
from treegym.optimize.strategies.base import Arguments
from treegym.optimize.targets import load_module
from treegym.untrusted import open_regular

__all__ = ["RECIPE", "RESULT", "WEIGHTS", "rebuild", "save_recipe", "save_weights"]

WEIGHTS, RECIPE, RESULT = "weights.safetensors", "recipe.py", "result.json"
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
    """Returns the optimised module, frozen and in evaluation mode; it is checked to give the outputs it gave."""
    return rebuild(TARGET, INPUTS, CANDIDATE, WEIGHTS)


if __name__ == "__main__":
    print(build())
'''


def save_weights(
    folder: Path, original: nn.Module, optimised: nn.Module, sample: Arguments, *, holds: str = "optimised"
) -> Path:
    """Writes the tensors that `rebuild` needs: the optimised module's, as they are packed, or the original's.

    The original's are needed where what the strategies do hangs on the weights (a rank, a choice of units).
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS
    store(path, optimised if holds == "optimised" else original, sample, optimised, holds=holds)
    return path


def save_recipe(folder: Path, *, target: str, inputs: str | None, result: dict[str, Any]) -> list[Path]:
    """Writes ``recipe.py`` and ``result.json`` beside the weights; returns the paths of all three."""
    metrics = result["performance_metrics"]
    summary = (
        f"{metrics['speed_improvement']['value']:.2f}x speed, {metrics['memory_efficiency']['value']:.2f}x memory, "
        f"output error {metrics['output_error']:.5f}"
    )
    text = _TEMPLATE.format(
        name=result["selected_strategy"], summary=summary, target=_findable(target), folder=str(Path.cwd()),
        inputs=None if inputs is None else _findable(inputs), candidate=result["selected_strategy"], weights=WEIGHTS,
    )  # fmt: skip
    atomic_write(folder / RECIPE, text)
    atomic_write(folder / RESULT, json.dumps(result, indent=1))
    return [folder / WEIGHTS, folder / RECIPE, folder / RESULT]


def rebuild(target: str, inputs: str | None, candidate: str, weights: str | Path) -> nn.Module:
    """Builds the module a target names, applies a candidate's strategies, and gives it the weights that were kept.

    Raises:
        DataError: where the weights do not fit, or the outputs are not those that were measured.
    """
    path, chosen = Path(weights), parse(candidate)
    finish(path.parent, first=RECIPE)
    module, source = load_module(target, inputs)
    module = copied(module)
    open_regular(path).close()
    stored = open_stored(path)
    if stored is None:
        return _rebuild_first_format(module, path, target, chosen, source(0))
    sample = with_sample(source(0), stored)
    try:
        return _filled(module, chosen, stored, sample, path)
    except (RuntimeError, IndexError, ValueError) as error:  # numbers in the file that the module cannot work with
        if isinstance(error, TreeGymError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: the module does not run with what it holds ({reason[:200]})") from error


def _filled(module: nn.Module, chosen: Candidate, stored: Stored, sample: Arguments, path: Path) -> nn.Module:
    if stored.holds == "program":
        strategy = load(chosen.strategies[-1]) if chosen.strategies else None
        if not isinstance(strategy, BackEnd):
            raise DataError(f"{path}: it holds a back end's program, which {chosen.name!r} has none of")
        result = strategy.restore(stored.program, module, sample)
    elif stored.holds == "original":
        fill(module, stored, path)
        result = apply(module, chosen, sample)
    else:
        result = apply(module, chosen, sample)
        fill(result, stored, path)
    check(result, sample, stored, path)
    return result


def _rebuild_first_format(
    module: nn.Module, path: Path, target: str, candidate: Candidate, sample: Arguments
) -> nn.Module:
    """Reads a recipe of an earlier release: the original's state dict, without a check of the outputs."""
    safetensors = require("safetensors.torch", extra="selection", purpose="loading the winner")
    from safetensors import SafetensorError

    try:
        missing, unexpected = module.load_state_dict(safetensors.load_file(str(path)), strict=False)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise DataError(f"{path}: the weights do not fit {target!r} ({str(error)[:200]})") from error
    held = module.state_dict(keep_vars=True)
    tied = {name for name in missing if any(held[name] is held[other] for other in held if other not in missing)}
    if unexpected or set(missing) - tied:
        raise DataError(f"{path}: the weights are of another module than {target!r} ({missing}, {unexpected})")
    return apply(module, candidate, sample)


def _findable(target: str) -> str:
    """Returns a target whose file, if it names one, is found from any working directory."""
    where, _, name = target.partition(".py:")
    if not name:
        return target
    return f"{Path(where).resolve()}.py:{name}"
