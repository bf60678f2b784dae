"""Does a model directory's config.json ask for no more than its weights hold?

`transformers` makes the model that config.json describes, and only then looks for its weights: what has no
weights is made up, at whatever size. So the model is made without memory first, and counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from treegym.errors import DataError
from treegym.files import read_header

__all__ = ["check_claims"]

COUNTS = re.compile(r"layer|block|depth")  # of what each one has weights of its own
EXPERTS = 2**12  # of these one array may hold all
SLACK = 2**24  # numbers that need not be stored: tables of positions and masks
TWICE, PACKED = 2, 16  # stored once and used in two places; so many to a number in quantised weights
VALUES = 2**20  # in the header of a file of weights


def check_claims(transformers: Any, config: Any, directory: Path, *, make: Callable[[Any], Any] | None = None) -> None:
    """Raises DataError where `config` describes a larger model than the safetensors files of `directory` hold.

    Args:
        transformers: the library.
        config: what config.json says.
        directory: where the weights are.
        make: makes a model of a configuration; by default a causal language model.
    """
    import torch

    shapes = [shape for file in sorted(directory.glob("*.safetensors")) for shape in _shapes(file)]
    sizes = [shape for shape in shapes if isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)]
    stored = sum(map(math.prod, sizes))
    where = directory / "config.json"
    for part in (config, config.get_text_config()):
        for name, value in _settings(part.to_dict()):
            most = len(sizes) if COUNTS.search(name) else EXPERTS if "expert" in name else None
            if most is not None and type(value) is int and not 0 <= value <= most:
                raise DataError(f"{where}: {name} is {value:,}, and the weights beside it are {len(sizes):,} arrays")
    with torch.device("meta"):
        try:
            model = (make or transformers.AutoModelForCausalLM.from_config)(config)
        except (RuntimeError, OverflowError, MemoryError, AssertionError, AttributeError, IndexError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{where}: describes no model that can be made: {said}") from error
    asked = sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
    if asked > (PACKED if hasattr(config, "quantization_config") else TWICE) * stored + SLACK:
        raise DataError(
            f"{where}: describes a model of {asked:,} numbers, and the weights beside it hold {stored:,}; "
            "put the config.json there with which the weights were saved"
        )


def _settings(told: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields all settings, those of a model's parts (a vision tower's, a text tower's) among them."""
    for name, value in told.items():
        if isinstance(value, dict) and (name == "vision" or name.endswith("_config")) and name != "quantization_config":
            yield from _settings(value)
        else:
            yield name, value


def _shapes(file: Path) -> list[Any]:
    try:
        header = read_header(file, values=VALUES)
    except DataError as error:
        raise DataError(f"{file}: damaged weights: {error}; save or download the model anew") from error
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    return [entry.get("shape") for entry in entries if isinstance(entry, dict)]
