"""The file of a checkpoint: a zip of `data.json` and `arrays.safetensors`, neither of them compressed.

What is not compressed can be no larger than the file; a zip that is compressed was not written here.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from treegym import hub
from treegym.errors import DataError
from treegym.files import arrays_in, atomic_path, put_arrays
from treegym.untrusted import json_of, open_regular

__all__ = ["FORMAT", "KIND", "read", "write"]

FORMAT = 1
KIND = "treegym-agent"
_STAMP = (2020, 1, 1, 0, 0, 0)  # one date for all, so that equal states give equal files
_DATA, _ARRAYS = "data.json", "arrays.safetensors"
_DATA_LIMIT = 2**24  # bytes; the bounds of a space of a million numbers take as many


def write(path: Any, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint, atomically where `path` is a name."""
    if hasattr(path, "write"):
        buffer = io.BytesIO()
        _zip(buffer, text, arrays)
        path.write(buffer.getvalue())
        return
    final = _with_suffix(Path(path))
    final.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(final) as temporary:
        _zip(temporary, text, arrays)


def _zip(target: Any, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_DATA, _STAMP), text)
        told = zipfile.ZipInfo(_ARRAYS, _STAMP)
        told.file_size = sum(array.nbytes for array in arrays.values())  # whether it is a large one; corrected later
        with archive.open(told, "w") as member:
            put_arrays(member, arrays)


def read(path: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the JSON and the arrays of a checkpoint, or raises DataError in one sentence."""
    if hasattr(path, "read"):
        members = _members(path, path)
    else:
        file_name = hub.fetched(path, kind="agent") if hub.is_hub_name(path) else _existing(Path(path))
        with open_regular(file_name) as file:
            members = _members(file, path)
    data = json_of(members[0], where=f"{path}: its {_DATA}", values=2**20)
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise DataError(f"{path}: not a TreeGym checkpoint (its kind is {str(data)[:40]!r})")
    if data.get("format") != FORMAT:
        raise DataError(
            f"{path}: checkpoint format {str(data.get('format'))[:40]}; this version reads format {FORMAT}: use the "
            "version of TreeGym that wrote it"
        )
    arrays, _ = arrays_in(np.frombuffer(members[1], np.uint8), where=f"{path}: its {_ARRAYS}")
    return data, arrays


class _Bounded:
    """A file of which no more is read at once than `most`: zipfile reads a table of contents of any size whole."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self.most = file, most

    def read(self, count: int = -1) -> bytes:
        found = self._file.read(self.most + 1 if count < 0 else min(count, self.most + 1))
        if len(found) > self.most:
            raise ValueError("its table of contents is larger than that of two members")
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _members(file: BinaryIO, path: Any) -> list[bytes]:
    """Returns the two parts."""
    size = file.seek(0, io.SEEK_END)
    bounded = _Bounded(file, 2**17)  # a comment of 64 KiB is looked through for its end
    try:
        with zipfile.ZipFile(bounded) as archive:  # type: ignore[arg-type] # all that is needed of a file
            bounded.most = size
            names = set(archive.namelist())
            if not {_DATA, _ARRAYS} <= names:
                hint = " (an SB3 checkpoint? those hold pickles, which are not read here)" if "data" in names else ""
                raise DataError(f"{path}: not a TreeGym checkpoint: it lacks {_DATA} or {_ARRAYS}{hint}")
            for name, most in ((_DATA, min(size, _DATA_LIMIT)), (_ARRAYS, size)):
                told = archive.getinfo(name)
                if told.compress_type != zipfile.ZIP_STORED or told.file_size != told.compress_size:
                    raise DataError(f"{path}: its member {name} is compressed; checkpoints are not, so it was altered")
                if told.file_size > most:
                    raise DataError(f"{path}: its member {name} is implausibly large; the file is damaged")
            return [archive.read(_DATA), archive.read(_ARRAYS)]
    except DataError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: not a readable checkpoint ({error}); the file is damaged") from error


def _with_suffix(path: Path) -> Path:
    return path if path.suffix else path.with_suffix(".zip")


def _existing(path: Path) -> Path:
    for candidate in (path, _with_suffix(path)):
        if candidate.exists():
            return candidate
    raise DataError(f"{path}: there is no such checkpoint")
