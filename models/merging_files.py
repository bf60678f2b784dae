"""The files of models that are merged: their tensors one at a time, adapters, and a file written as it is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from treegym.errors import DataError
from treegym.untrusted import read_json

__all__ = ["Tensors", "adapters_in", "write_tensors"]

ALIGNED = 8  # bytes that a header's length is a multiple of
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
DTYPES = {name: dtype for dtype, name in NAMES.items()}
PREFIX, LOW, HIGH = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# What adapters may be beside low-rank products of the usual scale: a merge would read them wrongly.
PLAIN: dict[str, Any] = {
    "peft_type": "LORA", "use_dora": False, "use_rslora": False, "fan_in_fan_out": False, "bias": "none",
    "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None,
}  # fmt: skip


class Tensors:
    """The tensors in the safetensors files of a folder; each is read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._homes: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:  # sizes and offsets are checked against the file here
                file: Any = safe_open(path, framework="pt")
                names = list(file.keys())
            except (SafetensorError, OSError) as error:
                raise DataError(f"{path}: damaged weights: {error}; save or download the model anew") from error
            for name in names:
                told = file.get_slice(name)
                if name in self._homes or told.get_dtype() not in DTYPES:
                    what = "is there twice" if name in self._homes else f"is of type {told.get_dtype()}"
                    raise DataError(f"{path}: {name} {what}, which cannot be merged; save the model anew in float32")
                self.shapes[name] = tuple(told.get_shape())
                self.dtypes[name] = DTYPES[told.get_dtype()]
                self._homes[name] = file

    def read(self, name: str) -> torch.Tensor:
        """Returns one tensor."""
        found: torch.Tensor = self._homes[name].get_tensor(name)
        return found


def adapters_in(folder: Path) -> tuple[Tensors, dict[str, tuple[str, str, float]]]:
    """Returns the tensors of low-rank adapters, and for each weight they adapt the names of A and B and their scale."""
    file = folder / "adapter_config.json"
    told = read_json(file)
    if not isinstance(told, dict):
        raise DataError(f"{file}: no settings of adapters; name a folder that peft or a round of iterate wrote")
    for name, plain in PLAIN.items():
        if told.get(name, plain) not in (plain, None, [], {}):
            raise DataError(f"{file}: {name} is {told[name]!r}; only plain low-rank adapters are merged")
    rank, alpha = told.get("r"), told.get("lora_alpha")
    if not (type(rank) is int and rank > 0 and isinstance(alpha, int | float)):
        raise DataError(f"{file}: r is {rank!r} and lora_alpha {alpha!r}; a rank and a number were expected")
    tensors = Tensors(folder)
    found = {}
    for name in tensors.shapes:
        other = name.removesuffix(LOW) + HIGH if name.endswith(LOW) else name.removesuffix(HIGH) + LOW
        if not name.startswith(PREFIX) or not name.endswith((LOW, HIGH)) or other not in tensors.shapes:
            raise DataError(f"{folder}: {name} is no pair of low-rank matrices; only plain adapters are merged")
        low, high = tensors.shapes[name], tensors.shapes[other]
        if name.endswith(LOW):
            if len(low) != 2 or len(high) != 2 or low[0] != rank or high[1] != rank:
                raise DataError(f"{folder}: {name} is {low} and its partner {high}; rank {rank} was expected")
            found[f"{name.removeprefix(PREFIX).removesuffix(LOW)}.weight"] = (name, other, alpha / rank)
    if not found:
        raise DataError(f"{folder}: holds no adapters (adapter_model.safetensors)")
    return tensors, found


def write_tensors(path: Path, like: Tensors, made: Callable[[str], torch.Tensor]) -> None:
    """Writes a safetensors file of the names, shapes and types of `like`, one tensor after the other as it is made."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    names = sorted(like.shapes, key=lambda name: (-like.dtypes[name].itemsize, name))  # keeps tensors aligned
    for name in names:
        size = torch.Size(like.shapes[name]).numel() * like.dtypes[name].itemsize
        header[name] = {
            "dtype": NAMES[like.dtypes[name]], "shape": list(like.shapes[name]), "data_offsets": [offset, offset + size]
        }  # fmt: skip
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            tensor = made(name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise DataError(
                    f"{name}: merged, it holds NaN or infinity; nothing was written: one of the models is damaged, "
                    f"or the scale is too large for {NAMES[like.dtypes[name]]}"
                )
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
