"""Files that survive a kill and files that are not to be trusted: atomic writes, checked array files and JSON lines.

An array file is in the safetensors format: an 8-byte header length, a JSON header, raw little-endian arrays.
Reading maps the file into memory after every size and offset in the header was checked against the file's length,
so opening costs neither time nor memory, and a damaged file is an error, never a crash.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from treegym.errors import DataError

__all__ = ["atomic_path", "atomic_write", "leave_at_once", "read_arrays", "read_json_lines", "write_arrays"]

HEADER_LIMIT = 64 * 2**20  # bytes; safetensors itself stops at 100 MB
LINE_LIMIT = 10_000_000  # characters of one JSON line
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_under_way: set[Path] = set()  # temporary files of this process
_beginning = threading.Lock()  # held while one is made


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary name beside `path`; on success it is flushed to disk and renamed, on failure removed."""
    final = Path(path)
    try:
        with _beginning:
            handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent)
            temporary = Path(name)
            _under_way.add(temporary)
    except OSError as error:  # the user knows the final name
        raise OSError(error.errno, error.strerror, os.fspath(final)) from error
    os.close(handle)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
        _under_way.discard(temporary)


def leave_at_once(code: int) -> NoReturn:
    """Ends the process from any thread, without unwinding; files that are being written leave nothing behind."""
    _beginning.acquire()  # for good: no other file is begun
    for temporary in tuple(_under_way):
        temporary.unlink(missing_ok=True)
    os._exit(code)


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes `data` so that `path` holds either its old content or all of the new."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def read_json_lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
    """Yields what stands on each line that is not blank, after its place (``FILE, line 3``) for messages.

    Raises DataError for a file that cannot be read and for the first line that is not JSON; NaN and infinity are none.
    """
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8-sig") as file:
            number = 0
            while line := file.readline(LINE_LIMIT + 1):
                number += 1
                where = f"{name}, line {number}"
                if len(line) > LINE_LIMIT:
                    raise DataError(f"{where}: longer than {LINE_LIMIT} characters")
                if line.strip():
                    yield where, _strict_json(line, where)
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error


def _strict_json(text: str, where: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from error


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named arrays and string metadata as one safetensors file, atomically and reproducibly."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))  # keeps arrays aligned
    offset = 0
    for name, array in ordered:
        kind = _NAMES.get(array.dtype.newbyteorder("<"))
        if kind is None:
            raise DataError(f"array {name!r} has dtype {array.dtype}, which safetensors files cannot hold")
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def read_arrays(path: str | os.PathLike[str], *, mmap: bool = True) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads an array file: read-only memory maps (or copies with ``mmap=False``), and the metadata."""
    file = Path(path)
    try:
        size = file.stat().st_size
        with open(file, "rb") as handle:
            prefix = handle.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(HEADER_LIMIT, size - 8):
                raise DataError(f"{file}: not a safetensors file (its header would be {length} of {size} bytes)")
            raw = handle.read(length)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: its header is not valid JSON; the file is damaged") from error
    if not isinstance(header, dict):
        raise DataError(f"{file}: its header is not a JSON object; the file is damaged")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise DataError(f"{file}: its metadata is not a table of strings; the file is damaged")
    start = 8 + length
    buffer = np.memmap(file, dtype=np.uint8, mode="r") if mmap and size else np.fromfile(file, dtype=np.uint8)
    arrays = {}
    for name, entry in header.items():
        dtype, shape, begin, end = _checked_entry(file, name, entry, size - start)
        view = buffer[start + begin : start + end].view(np.ndarray)
        aligned = (start + begin) % dtype.itemsize == 0
        arrays[name] = (view if aligned else view.copy()).view(dtype).reshape(shape)
        arrays[name].flags.writeable = False
    return arrays, metadata


def _checked_entry(file: Path, name: str, entry: Any, available: int) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Returns dtype, shape and byte range of one header entry, or raises if they do not fit each other or the file."""
    problem = DataError(f"{file}: the entry of array {name!r} is damaged: {str(entry)[:200]}")
    if not isinstance(entry, dict):
        raise problem
    dtype = _DTYPES.get(str(entry.get("dtype")))
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if dtype is None or not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise problem
    numbers = [*shape, *offsets]
    if len(shape) > 8 or not all(type(n) is int and 0 <= n <= 2**48 for n in numbers):
        raise problem
    begin, end = offsets
    if not begin <= end <= available or math.prod(shape) * dtype.itemsize != end - begin:
        raise problem
    return dtype, tuple(shape), begin, end
