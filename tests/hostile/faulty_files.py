"""A layer over the file system in which one operation fails, as SQLite tests itself: which one, one chooses.

Writing, flushing, closing, syncing, renaming and making of files count, in the order in which they happen; those of
files outside of the folder do not.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

__all__ = ["FaultyFiles"]

WRITES = ("write", "writelines", "flush", "truncate")


class FaultyFiles:
    """Operations in a folder; the one numbered `failing` raises an error of the operating system, once."""

    def __init__(self, folder: Path, failing: int | None = None, number: int = errno.ENOSPC) -> None:
        self.folder, self.failing, self.number = folder.resolve(), failing, number
        self.done = 0  # operations so far
        self.failed = ""  # the one that failed

    def __call__(self, what: str, path: Any) -> None:
        """Counts an operation, or fails it."""
        if not self._ours(path):
            return
        if self.done == self.failing:
            self.done += 1
            self.failed = f"{what} of {Path(os.fsdecode(path)).name}"
            raise OSError(self.number, os.strerror(self.number), os.fsdecode(path))
        self.done += 1

    def _ours(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return Path(os.fsdecode(path)).absolute().is_relative_to(self.folder)

    @contextmanager
    def at_work(self) -> Iterator[FaultyFiles]:
        """Puts the layer in while the block runs."""
        opened, made, folder_made = io.open, tempfile.mkstemp, os.mkdir

        def open_(file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
            if not set(mode) & set("wax+") or not self._ours(file):
                return opened(file, mode, *args, **named)
            self("open", file)
            return _Watched(opened(file, mode, *args, **named), file, self)

        def mkstemp(*args: Any, **named: Any) -> Any:
            self("make", os.path.join(named.get("dir") or tempfile.gettempdir(), "a file"))
            return made(*args, **named)

        def mkdir(path: Any, *args: Any, **named: Any) -> None:
            self("make a folder", path)
            folder_made(path, *args, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builtins, "open", open_)
            patch.setattr(io, "open", open_)
            patch.setattr(tempfile, "mkstemp", mkstemp)
            patch.setattr(os, "mkdir", mkdir)
            patch.setattr(os, "replace", self._before("rename", os.replace, 1))
            patch.setattr(os, "rename", self._before("rename", os.rename, 1))
            patch.setattr(os, "fsync", self._of_handle("sync", os.fsync))
            patch.setattr(os, "posix_fallocate", self._of_handle("reserve", os.posix_fallocate))
            patch.setattr(os, "pwrite", self._of_handle("write", os.pwrite))
            patch.setattr(safetensors.torch, "serialize_file", self._serialised(safetensors.torch.serialize_file))
            yield self

    def _before(self, what: str, call: Callable[..., Any], place: int) -> Callable[..., Any]:
        def before(*args: Any, **named: Any) -> Any:
            self(what, args[place])
            return call(*args, **named)

        return before

    def _of_handle(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def before(handle: int, *args: Any) -> Any:
            self(what, os.readlink(f"/proc/self/fd/{handle}"))
            return call(handle, *args)

        return before

    def _serialised(self, call: Callable[..., None]) -> Callable[..., None]:
        def serialize_file(arrays: Any, path: Any, *args: Any, **named: Any) -> None:
            try:
                self("write", path)
            except OSError as error:  # as the library says it, which writes by itself
                raise safetensors.SafetensorError(f"I/O error: {error.strerror} (os error {error.errno})") from error
            call(arrays, path, *args, **named)

        return serialize_file


class _Watched:
    """An open file whose writes count."""

    def __init__(self, file: Any, path: Any, faults: FaultyFiles) -> None:
        self._file, self._path, self._faults = file, path, faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._file, name)
        if name not in WRITES:
            return found

        def counted(*args: Any) -> Any:
            self._faults(name, self._path)
            return found(*args)

        return counted

    def __enter__(self) -> _Watched:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._file)
