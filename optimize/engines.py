"""A module as a program of another library's: what runs it, and its bytes.

A strategy exports the module, makes a program of it (files by name) and says how the program is started. The library
starts in the process where the module is called, with as many threads as PyTorch has there; a program is built once,
and a recipe holds it as it was built.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from treegym.errors import ConfigError, DataError, MissingDependency, require
from treegym.files import read_arrays, write_arrays
from treegym.optimize.strategies.base import (
    Arguments,
    Given,
    HybridOptimizationStrategy,
    NotApplicable,
    call,
    map_tensors,
    tensors_of,
)

__all__ = [
    "BackEnd", "Engine", "Files", "Run", "check_digests", "digests", "exported", "read_program", "write_program",
]  # fmt: skip

Files = dict[str, bytes]
Run = Callable[[list[np.ndarray]], list[np.ndarray]]
ABOUT = "about.json"
SHAPES = 8  # inputs that are looked at to find out which dimensions vary


class BackEnd(HybridOptimizationStrategy):
    """A strategy that ends in an `Engine`: it says how a program is built and how it is started."""

    family, stage = "back_end", 18
    needs: tuple[str, ...] = ()  # packages
    extra: str = ""  # that installs them
    program: str = ""  # name of the program that is built: strategies that start one in different ways share it

    def missing(self) -> str:
        try:
            for package in self.needs:
                require(package, extra=self.extra, purpose=f"the strategy {self.name}")
        except MissingDependency as error:
            return str(error)
        return ""

    def build(self, module: nn.Module, sample: Arguments) -> Files:
        """Returns the files of the program; raises NotApplicable where there is none."""
        raise NotImplementedError

    def start(self, files: Files, threads: int) -> Run:
        """Returns what runs a program: arrays in the order of the module's inputs to arrays of its outputs."""
        raise NotImplementedError

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        if reason := self.missing():
            raise NotApplicable(reason)
        if any(one.device.type != "cpu" for one in (*module.parameters(), *tensors_of(sample))):
            raise NotApplicable("the back end runs on the processor, the module is elsewhere")
        return self.restore(self.described(module, sample), module, sample)

    def described(self, module: nn.Module, sample: Arguments) -> Files:
        """Returns a new program, and a file that says what its inputs look like."""
        return self.build(module, sample) | {ABOUT: json.dumps(_forms(self.given, sample)).encode()}

    def restore(self, files: Files, module: nn.Module, sample: Arguments) -> nn.Module:
        """Returns the engine of a program that was built before; `module` says what its outputs look like.

        Nothing is started here: children that are forked from a process with a library's threads may hang.
        """
        with torch.no_grad():
            return Engine(self.start, files, sample, call(module, map_tensors(sample, torch.clone)))


class Engine(nn.Module):
    """Runs a program in the place of a module: tensors in, tensors out, in the structures the module had.

    Args:
        start: starts the program with a number of threads.
        files: the program; they are kept in a file without a name, for whoever writes a recipe.
        sample: inputs of the module, whose structure and constants every call must have.
        output: what the module gave for them.
    """

    def __init__(self, start: Callable[[Files, int], Run], files: Files, sample: Arguments, output: Any) -> None:
        super().__init__()
        self._start = start
        self._forms = _read_forms(files)
        self._constants = map_tensors(sample, lambda _: None)
        self._template = map_tensors(output, lambda x: x.detach().new_empty(0))
        self._kept = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the engine lives)
        self._sizes = {name: len(data) for name, data in files.items()}
        for data in files.values():
            self._kept.write(data)
        self._kept.flush()
        self._running: tuple[int, Run] | None = None  # in which process, and what runs the program there

    @property
    def engine_bytes(self) -> int:
        """How large the program is: about what the library keeps of it in memory."""
        return sum(self._sizes.values())

    def files(self) -> Files:
        """Returns the program."""
        found, where = {}, 0
        for name, size in self._sizes.items():
            found[name] = os.pread(self._kept.fileno(), size, where)
            where += size
        return found

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        arguments: Arguments = args
        if isinstance(self._constants, dict):
            if args or kwargs.keys() != self._constants.keys():
                raise ConfigError(f"the program takes its inputs by name: {', '.join(self._constants)}")
            arguments = {name: kwargs[name] for name in self._constants}
        elif kwargs:
            raise ConfigError(f"the program takes {len(self._constants)} inputs by position, none by name")
        if map_tensors(arguments, lambda _: None) != self._constants:
            raise ConfigError("the program was built for other constants or another structure of its inputs")
        arrays = [self._array(x, form) for x, form in zip(tensors_of(arguments), self._forms, strict=True)]
        if self._running is None or self._running[0] != os.getpid():  # threads do not survive a fork
            self._running = os.getpid(), self._start(self.files(), torch.get_num_threads())
        results = iter(self._running[1](arrays))
        return map_tensors(self._template, lambda x: _tensor(next(results), x.dtype))

    @staticmethod
    def _array(x: Tensor, form: tuple[str, list[int | None]]) -> np.ndarray:
        dtype, shape = form
        given = str(x.dtype).removeprefix("torch.")
        fits = len(shape) == x.dim() and all(b in (None, a) for a, b in zip(x.shape, shape, strict=True))
        if given != dtype or not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ConfigError(
                f"the program was built for {dtype}[{wanted}], {given}{list(x.shape)} came; optimise with inputs of "
                "all the shapes you use (a list of them), or cast"
            )
        array: np.ndarray = x.detach().contiguous().numpy()
        return array


def exported(module: nn.Module, sample: Arguments, given: Given) -> torch.export.ExportedProgram:
    """Exports a module; dimensions in which the given inputs differ from each other stay open.

    Raises:
        NotApplicable: where PyTorch cannot export it.
    """
    samples = given.samples(sample, SHAPES)
    shapes = [[tuple(x.shape) for x in tensors_of(one)] for one in (sample, *samples)]
    open_dimensions = iter(
        [
            {i: torch.export.Dim.AUTO for i, sizes in enumerate(zip(*forms, strict=True)) if len(set(sizes)) > 1}
            for forms in zip(*shapes, strict=True)
        ]
    )
    largest = max((sample, *samples), key=lambda one: sum(x.numel() for x in tensors_of(one)))
    dynamic = pytree.tree_map(lambda x: next(open_dimensions) if isinstance(x, Tensor) else None, largest)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused operator is known to PyTorch alone
    try:
        with torch.no_grad():
            return torch.export.export(
                module, tuple(_positional(largest)), _named(largest), dynamic_shapes=dynamic, strict=False
            )
    except Exception as error:  # the exporter runs the user's code; whatever it raises means "not exportable"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotApplicable(f"PyTorch cannot export the module ({reason[:200]})") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def write_program(path: Path, files: Files) -> None:
    """Writes a program where the next one who needs it finds it."""
    write_arrays(path, {name: np.frombuffer(data, np.uint8) for name, data in files.items()}, digests(files))


def read_program(path: Path) -> Files:
    """Reads what `write_program` wrote."""
    arrays, found = read_arrays(path)
    files = {name: array.tobytes() for name, array in arrays.items()}
    check_digests(files, found, path)
    return files


def digests(files: Files) -> dict[str, str]:
    """Returns a digest for each file of a program."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def check_digests(files: Files, expected: Mapping[str, str], path: Path) -> None:
    """Raises DataError for files that are not as written: damaged ones never reach the library that would read them."""
    for name, digest in digests(files).items():
        if expected.get(name) != digest:
            raise DataError(f"{path}: the program is damaged ({name} has other bytes than were written)")
    if ABOUT not in files:
        raise DataError(f"{path}: the program lacks {ABOUT}, which names its inputs; the file is damaged")


def _forms(given: Given, sample: Arguments) -> list[tuple[str, list[int | None]]]:
    """Returns number format and shape of every input; None for dimensions in which the given inputs differ."""
    all_samples = [tensors_of(one) for one in (sample, *given.samples(sample, SHAPES))]
    forms = []
    for tensors in zip(*all_samples, strict=True):
        sizes = zip(*[x.shape for x in tensors], strict=True)
        shape = [one[0] if len(set(one)) == 1 else None for one in sizes]
        forms.append((str(tensors[0].dtype).removeprefix("torch."), shape))
    return forms


def _read_forms(files: Files) -> list[tuple[str, list[int | None]]]:
    return [(dtype, shape) for dtype, shape in json.loads(files[ABOUT])]


def _positional(arguments: Arguments) -> tuple[Any, ...]:
    return () if isinstance(arguments, dict) else tuple(arguments)


def _named(arguments: Arguments) -> dict[str, Any]:
    return arguments if isinstance(arguments, dict) else {}


def _tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
