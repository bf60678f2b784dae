"""Files that survive a kill or a full disk, and arrays in files that are not to be trusted.

An array file is in the safetensors format: an 8-byte header length, a JSON header, raw little-endian arrays.
Reading maps the file into memory after every size and offset in the header was checked against the file's length,
so opening costs neither time nor memory, and a damaged file is an error, never a crash.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from treegym.errors import DataError, StorageError, TreeGymError
from treegym.untrusted import LINE_LIMIT, VALUES, json_of, open_regular, read_json_lines

__all__ = [
    "LINE_LIMIT",
    "arrays_in",
    "atomic_path",
    "atomic_write",
    "cache_folder",
    "leave_at_once",
    "put_arrays",
    "read_arrays",
    "read_header",
    "read_json_lines",
    "told_by",
    "write_arrays",
]

HEADER_LIMIT = 2**25  # bytes; a vocabulary of 2^20 tokens takes half of it
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)  # nothing else could be written either
# How libraries say the same that have errors of their own.
_FULL_WORDS = re.compile(
    r"no space left|disk is full|os error (28|30|122)|quota exceeded|read-only file", re.IGNORECASE
)
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


def cache_folder() -> Path:
    """Returns where everything is kept that can be made or fetched again: ``$TREEGYM_CACHE``, else the user's cache."""
    if told := os.environ.get("TREEGYM_CACHE"):
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "treegym"


@contextmanager
def told_by(path: str | os.PathLike[str], *, kept: str = "") -> Iterator[None]:
    """Makes a failed write tell the name that the user knows; a disk that is full or broken is a StorageError.

    Args:
        path: the name; of blocks within each other the outermost is told.
        kept: what is kept, and what to do.
    """

    def full(number: int | None, reason: str | None) -> StorageError:
        end = f"; {kept}" if kept else ""
        return StorageError(f"{os.fspath(path)} could not be written: {reason}{end}", number, reason)

    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full(error.errno, error.strerror) from error
        if isinstance(error, TreeGymError) or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    except Exception as error:
        if isinstance(error, TreeGymError) or not _FULL_WORDS.search(str(error)):
            raise
        raise full(errno.ENOSPC, str(error).splitlines()[0][:200]) from error


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary name beside `path`; on success it is flushed to disk and renamed, on failure removed."""
    final = Path(path)
    with told_by(final):
        with _beginning:
            handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent)
            temporary = Path(name)
            _under_way.add(temporary)
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


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named arrays and string metadata as one safetensors file, atomically and reproducibly."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        put_arrays(file, arrays, metadata)


def put_arrays(file: Any, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes the same into a file that is open."""
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
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for _, array in ordered:
        file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def read_arrays(
    path: str | os.PathLike[str], *, mmap: bool = True, values: int = VALUES
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads an array file: read-only memory maps (or copies with ``mmap=False``), and the metadata.

    `values` is how many values and containers the header may have, those written out in its metadata included.
    """
    with open_regular(path) as file:
        if mmap and os.fstat(file.fileno()).st_size:
            buffer = np.memmap(file, dtype=np.uint8, mode="r").view(np.ndarray)
        else:
            buffer = np.fromfile(file, dtype=np.uint8)
    return arrays_in(buffer, where=os.fspath(path), values=values)


def read_header(path: str | os.PathLike[str], *, values: int = VALUES) -> dict[str, Any]:
    """Returns the header of an array file, whose entries are not checked: for readers that take no bound themselves."""
    where = os.fspath(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT, size - 8):
            raise DataError(f"{where}: not a safetensors file (its header would be {length} of {size} bytes)")
        return _header(file.read(length), where, values)


def arrays_in(buffer: np.ndarray, *, where: str, values: int = VALUES) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays in the bytes ``[n] uint8`` of an array file, as views of them, and the metadata."""
    length = int.from_bytes(buffer[:8].tobytes(), "little")
    if len(buffer) < 8 or length > min(HEADER_LIMIT, len(buffer) - 8):
        raise DataError(f"{where}: not a safetensors file (its header would be {length} of {len(buffer)} bytes)")
    header = _header(buffer[8 : 8 + length].tobytes(), where, values)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise DataError(f"{where}: its metadata is not a table of strings; the file is damaged")
    start = 8 + length
    arrays = {}
    for name, entry in header.items():
        dtype, shape, begin, end = _checked_entry(where, name, entry, len(buffer) - start)
        view = buffer[start + begin : start + end]
        aligned = (start + begin) % dtype.itemsize == 0
        arrays[name] = (view if aligned else view.copy()).view(dtype).reshape(shape)
        arrays[name].flags.writeable = False
    return arrays, metadata


def _header(text: bytes, where: str, values: int) -> dict[str, Any]:
    try:
        header = json_of(text, where=where, values=values)
    except DataError as error:
        raise DataError(f"{where}: its header cannot be read ({error}); the file is damaged") from error
    if not isinstance(header, dict):
        raise DataError(f"{where}: its header is not a JSON object; the file is damaged")
    return header


def _checked_entry(where: str, name: str, entry: Any, available: int) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Returns dtype, shape and byte range of one header entry, or raises if they do not fit each other or the file."""
    problem = DataError(f"{where}: the entry of array {name[:80]!r} is damaged: {str(entry)[:200]}")
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
