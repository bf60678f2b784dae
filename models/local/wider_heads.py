"""The same model with wider attention heads, for engines whose kernels do not know narrow ones.

vLLM on the CPU takes heads of 32, 64, 80 numbers and more; those of the bundled models are narrower. A head is widened
from d to D numbers exactly: the new rows are zeros, the queries grow by sqrt(D / d) because attention divides by
sqrt(D) now, and rotary embeddings, which turn number i together with number i + D/2 by an angle theta^(-2i/D), keep
their angles with halves moved apart and the base theta^(D/d) in place of theta.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np

from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write, read_arrays, write_arrays
from treegym.untrusted import read_json

__all__ = ["with_wider_heads"]


def with_wider_heads(model: str | os.PathLike[str], out: str | os.PathLike[str], *, head_dim: int = 32) -> Path:
    """Writes a Llama with heads of `head_dim` numbers that says exactly what `model` says; float32 weights.

    Args:
        model: directory of a Llama with narrower heads.
        out: directory to write to; made if need be.
        head_dim: numbers of a head, even, at least as many as before.
    """
    source, target = Path(model), Path(out)
    config = read_json(source / "config.json")
    if not isinstance(config, dict):
        raise DataError(f"{source / 'config.json'}: damaged: it holds a {type(config).__name__}, not an object")
    if config.get("model_type") != "llama":
        raise ConfigError(f"{source}: heads are widened in Llamas only, not in {config.get('model_type')!r}")
    narrow = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10_000.0), "rope_type": "default"}
    if rope.get("rope_type", "default") != "default":
        raise ConfigError(f"{source}: rotary embeddings of type {rope['rope_type']!r} cannot be widened")
    if head_dim < narrow or head_dim % 2 or narrow % 2:
        raise ConfigError(f"heads of {narrow} numbers cannot be widened to {head_dim}")
    arrays, metadata = read_arrays(source / "model.safetensors")
    place = np.arange(narrow) + np.where(np.arange(narrow) >= narrow // 2, (head_dim - narrow) // 2, 0)  # [d]
    widened = {
        name: _widened(name, array.astype(np.float32), narrow, head_dim, place) for name, array in arrays.items()
    }
    target.mkdir(parents=True, exist_ok=True)
    write_arrays(target / "model.safetensors", widened, {**metadata, "format": "pt"})
    config |= {"head_dim": head_dim, "dtype": "float32"}
    config["rope_parameters"] = {**rope, "rope_theta": float(rope["rope_theta"]) ** (head_dim / narrow)}
    config.pop("rope_theta", None)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    atomic_write(target / "config.json", json.dumps(config, indent=2) + "\n")
    return target


def _widened(name: str, array: np.ndarray, narrow: int, wide: int, place: np.ndarray) -> np.ndarray:
    """Returns a weight with every head's rows (or columns, of the output projection) spread to their new places."""
    kind = name.split(".")[-2] if "self_attn" in name else ""
    if kind == "o_proj" and array.ndim == 2:
        return np.ascontiguousarray(_spread(array.T, narrow, wide, place).T)
    if kind in ("k_proj", "v_proj"):
        return _spread(array, narrow, wide, place)
    if kind == "q_proj":
        return _spread(array, narrow, wide, place) * np.float32(math.sqrt(wide / narrow))
    return array


def _spread(rows: np.ndarray, narrow: int, wide: int, place: np.ndarray) -> np.ndarray:
    """Returns ``[H * D, ...]`` of ``[H * d, ...]``."""
    heads = rows.reshape(-1, narrow, *rows.shape[1:])  # [H, d, ...]
    spread = np.zeros((len(heads), wide, *rows.shape[1:]), np.float32)
    spread[:, place] = heads
    return spread.reshape(-1, *rows.shape[1:])
