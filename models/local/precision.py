"""Where and how precisely a model runs: its device, its number format, its attention; as asked for, or what is fast."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from treegym.errors import ConfigError, require

__all__ = ["DTYPES", "WIDTH", "choose_attention", "choose_device", "choose_dtype", "fast_at_bfloat16"]

DTYPES = ("auto", "float32", "bfloat16", "float16")
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a weight
ATTENTION = ("auto", "sdpa", "eager", "flash_attention_2")


def choose_attention(requested: str, *, device: str, dtype: str) -> str:
    """Returns the attention implementation: as requested, or flash-attention 2 on CUDA in half precision, or SDPA."""
    if requested not in ATTENTION:
        raise ConfigError(f"attention is {requested!r}; it must be one of {', '.join(ATTENTION)}")
    flash_fits = device.startswith("cuda") and dtype in ("bfloat16", "float16")
    has_flash = importlib.util.find_spec("flash_attn") is not None
    if requested == "flash_attention_2":
        if not flash_fits:
            raise ConfigError(
                f"flash-attention 2 needs a CUDA device and bfloat16 or float16, not {device} and {dtype}"
            )
        require("flash_attn", extra="flash", purpose="flash-attention 2")
        return requested
    if requested == "auto":
        return "flash_attention_2" if flash_fits and has_flash else "sdpa"
    return requested


def choose_dtype(requested: str, *, device: str, stored: str = "float32") -> str:
    """Returns the precision: as requested, or bfloat16 on CUDA and where a processor is fast at it, else float32.

    Args:
        requested: a name, or "auto".
        device: where the model will run.
        stored: the precision of the weights on disk: on a processor, only what is stored in bfloat16 is run in it.
    """
    if requested not in DTYPES:
        raise ConfigError(f"dtype is {requested!r}; it must be one of {', '.join(DTYPES)}")
    if requested != "auto":
        return requested
    fast = device.startswith("cuda") or (stored == "bfloat16" and fast_at_bfloat16())
    return "bfloat16" if fast else "float32"


@functools.cache
def fast_at_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 in hardware."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:  # not Linux: float32 is right everywhere
        return False
    flags = {
        flag for line in text.splitlines() if line.lower().startswith(("flags", "features")) for flag in line.split()
    }
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def choose_device(requested: str | None) -> str:
    """Returns the device: as requested, or CUDA when there is one, else the CPU."""
    import torch

    device = requested or "auto"
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"device is {device!r}; expected cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but PyTorch sees no CUDA device here; use cpu")
    return device
