"""The winner as a file of another library's: ONNX, OpenVINO, or PyTorch's exported program (.pt2).

A file counts only if the library that reads it gives the winner's outputs on the sample; else nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from treegym.checks import one_of
from treegym.errors import require
from treegym.files import atomic_path, atomic_write
from treegym.optimize.compare import Comparison, leaves
from treegym.optimize.engines import BackEnd, Engine, Files, exported
from treegym.optimize.strategies import STRATEGIES, load
from treegym.optimize.strategies.base import Arguments, Given, NotApplicable, call, map_tensors
from treegym.optimize.strategies.onnx_runtime import MODEL

__all__ = ["EXPORTS", "exportable", "write_export"]

EXPORTS = ("onnx", "openvino", "pt2")
ALIKE = 0.02  # error of the file's outputs over the winner's, processors and libraries round differently
# Kernels of PyTorch that no exporter knows, and modules that are compiled already.
_UNKNOWN = (
    "int8_dynamic", "int4_weights", "fuse_activation", "compile", "compile_freezing", "compile_autotune", "workspaces",
)  # fmt: skip
_RUNS = {"onnx": "onnx", "openvino": "openvino"}  # the strategy that reads a file of each kind


def exportable(names: Sequence[str], export: str) -> list[str]:
    """Returns the strategies whose result can be written as a file of a kind."""
    prefix = _RUNS.get(one_of("export", export, EXPORTS))
    engines = {name for name, entry in STRATEGIES.items() if entry.family == "back_end"}
    fitting = {name for name in engines if prefix is not None and name.startswith(prefix)}
    return [name for name in names if name not in (engines - fitting) and name not in _UNKNOWN]


def write_export(folder: Path, export: str, winner: nn.Module, sample: Arguments, given: Given) -> list[Path]:
    """Writes a module as a file that a library reads without this package; returns the paths.

    Raises:
        NotApplicable: where it cannot be exported, or the file does not give the module's outputs.
    """
    if one_of("export", export, EXPORTS) == "pt2":
        return [_write_pt2(folder / "model.pt2", winner, sample, given)]
    graph = _graph(winner, sample, given)
    _check(winner, _reader(export, given).restore(graph, winner, sample), sample)
    if export == "onnx":
        atomic_write(folder / MODEL, graph[MODEL])
        return [folder / MODEL]
    return _write_openvino(folder, graph[MODEL])


def _graph(winner: nn.Module, sample: Arguments, given: Given) -> Files:
    if isinstance(winner, Engine):
        return winner.files()
    strategy = load("onnx")
    assert isinstance(strategy, BackEnd)
    strategy.given = given
    return strategy.described(winner, sample)


def _reader(export: str, given: Given) -> BackEnd:
    strategy = load(_RUNS[export])
    assert isinstance(strategy, BackEnd)
    if reason := strategy.missing():
        raise NotApplicable(reason)
    strategy.given = given
    return strategy


def _write_openvino(folder: Path, graph: bytes) -> list[Path]:
    openvino = require("openvino", extra="openvino", purpose="writing OpenVINO's files")
    model = openvino.Core().read_model(graph)
    openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    return [folder / "model.xml", folder / "model.bin"]


def _write_pt2(path: Path, winner: nn.Module, sample: Arguments, given: Given) -> Path:
    program = exported(winner, sample, given)
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            torch.export.save(program, file)
        with open(temporary, "rb") as file:
            _check(winner, torch.export.load(file).module(), sample)
    return path


def _check(winner: nn.Module, read: Callable[..., Any], sample: Arguments) -> None:
    """Raises NotApplicable unless what was read from a file gives the winner's outputs."""
    with torch.no_grad():
        expected = list(leaves(call(winner, map_tensors(sample, torch.clone))))
        got = list(leaves(call(read, map_tensors(sample, torch.clone))))  # type: ignore[arg-type]
    comparison = Comparison()
    comparison.add(expected, got)
    worst = comparison.verdicts()[0]
    if worst.error > ALIKE:
        raise NotApplicable(f"the file's output {worst.name!r} is off by {worst.error:.3f} of its spread")
