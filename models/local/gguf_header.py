"""What a GGUF file says about itself: its metadata and how many weights it holds, read without loading a weight.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: a magic, counts, key-value pairs, and a
list of tensors. Every length is checked against the bytes that are left before it is used.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from treegym.errors import DataError

__all__ = ["GgufHeader", "read_gguf_header"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MOST_ENTRIES = 2**16  # of metadata pairs and of tensors; real files have hundreds
MOST_NESTED = 4  # arrays within each other; real files have one
MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class GgufHeader:
    """The head of a GGUF file."""

    metadata: dict[str, Any]  # single values; of an array its length
    parameters: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def name(self) -> str:
        return str(self.metadata.get("general.name", ""))

    def token(self, role: str) -> int | None:
        """Returns the id of a special token by its role, such as ``eos`` or ``eot``."""
        value = self.metadata.get(f"tokenizer.ggml.{role}_token_id")
        return value if isinstance(value, int) else None


class _Cursor:
    """Reads little-endian values one after the other, never past the end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data, self._path, self._at = data, path, 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise DataError(f"{self._path}: damaged or cut short: it ends inside its header; download the file anew")
        start, self._at = self._at, self._at + size
        return self._data[start : self._at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, most: int, what: str) -> int:
        value = self.number("Q")
        if value > most:
            raise DataError(f"{self._path}: damaged: it claims {value:,} {what}; download the file anew")
        return int(value)

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int, nested: int = 0) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY or nested >= MOST_NESTED:
            raise DataError(f"{self._path}: its metadata holds a value of kind {kind}, which this version cannot read")
        inner, length = self.number("I"), self.number("Q")
        if inner in SCALARS:
            self.take(length * struct.calcsize(f"<{SCALARS[inner]}"))
        else:
            for _ in range(length):  # ends at the end of the file at the latest
                self.value(inner, nested + 1)
        return length


def read_gguf_header(path: str | Path) -> GgufHeader:
    """Returns the head of a file; raises DataError for one that is not GGUF, or damaged."""
    file = Path(path)
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(_Cursor(data, file), file)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: cannot be read as a GGUF model: {error}") from error  # an empty file, or no rights


def _read(cursor: _Cursor, file: Path) -> GgufHeader:
    magic = cursor.take(4)
    if magic != MAGIC:
        raise DataError(f"{file}: not a GGUF model: it begins with {magic!r} instead of {MAGIC!r}")
    version = cursor.number("I")
    if version not in VERSIONS:
        raise DataError(f"{file}: GGUF version {version}; versions 2 and 3, little-endian, can be read")
    tensors = cursor.count(MOST_ENTRIES, "tensors")
    metadata = {}
    for _ in range(cursor.count(MOST_ENTRIES, "metadata entries")):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    parameters = 0
    for _ in range(tensors):
        cursor.text()
        dimensions = cursor.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise DataError(f"{file}: damaged: a tensor of {dimensions} dimensions; download the file anew")
        parameters += prod(cursor.number("Q") for _ in range(dimensions))
        cursor.take(12)  # its type and where its data are
    return GgufHeader(metadata, parameters)
