"""Measurements that were made before, by module, machine and versions: a file that can be merged with others' files.

A measurement is found again for a module of the same structure and weights, inputs of the same forms, the same
processor, and the same versions of what computes. A winner is measured anew whatever was found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from treegym.errors import DataError
from treegym.files import atomic_write
from treegym.optimize.hardware import Kind, kind_here
from treegym.optimize.held import held_tensors
from treegym.optimize.measurement import Measurement
from treegym.optimize.strategies.base import Arguments, tensors_of
from treegym.untrusted import read_json

__all__ = ["MeasurementCache", "key_of", "merge"]

FORMAT = 1


class MeasurementCache:
    """The measurements in a file; where there is none yet, none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._entries = _read(self.path) if self.path.exists() else {}

    def of(self, key: str) -> dict[str, Measurement]:
        """Returns what was measured under a key, by the candidate's name."""
        return dict(self._entries.get(key, {}))

    def add(self, key: str, found: Mapping[str, Measurement]) -> None:
        """Adds measurements and writes the file, with what others have written there meanwhile."""
        held = _read(self.path) if self.path.exists() else {}
        held.setdefault(key, {}).update(found)
        self._entries = held
        _write(self.path, held)


def key_of(module: nn.Module, sample: Arguments, kind: Kind | None = None) -> str:
    """Returns the fingerprint of a module, the forms of its inputs and a kind of machine (by default this one's)."""
    kind = kind or kind_here()
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in held_tensors(module):
        plain = tensor.int_repr() if tensor.is_quantized else tensor.detach()
        digest.update(f"{name}{plain.dtype}{list(plain.shape)}".encode())
        digest.update(plain.to_dense().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(repr([(x.dtype, list(x.shape), x.device.type) for x in tensors_of(sample)]).encode())
    digest.update(repr((kind.hardware, list(kind.versions))).encode())
    return digest.hexdigest()


def merge(into: Path, others: Iterable[Path]) -> int:
    """Adds the measurements of other files to one; the tightest of several is kept.

    Returns how many there are then.
    """
    held = _read(into)
    for path in others:
        for key, entries in _read(path).items():
            mine = held.setdefault(key, {})
            for name, theirs in entries.items():
                if name not in mine or _width(theirs) < _width(mine[name]):
                    mine[name] = theirs
    _write(into, held)
    return sum(len(entries) for entries in held.values())


def _width(m: Measurement) -> float:
    return m.speed.high / m.speed.low


def _read(path: Path) -> dict[str, dict[str, Measurement]]:
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DataError(f"{path}: not measurements of format {FORMAT}; give another file")
    try:
        found = {
            str(key): {str(name): _checked(row) for name, row in entries.items()}
            for key, entries in data["measurements"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{path}: the measurements are damaged ({error}); delete it to start anew") from error
    return found


def _checked(row: dict[str, Any]) -> Measurement:
    m = Measurement.from_dict(row)
    for interval in (m.speed, m.memory, m.accuracy):
        if not 0 <= interval.low <= interval.value <= interval.high < float("inf"):
            raise ValueError(f"{interval} is not an interval")
    if m.speed.low <= 0 or m.memory.low <= 0:
        raise ValueError("a ratio is not above 0")
    return replace(m, process_bytes=None)


def _write(path: Path, held: Mapping[str, Mapping[str, Measurement]]) -> None:
    rows = {key: {name: m.as_dict() for name, m in entries.items()} for key, entries in held.items()}
    atomic_write(path, json.dumps({"format": FORMAT, "measurements": rows}))
