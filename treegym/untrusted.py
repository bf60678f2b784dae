"""Files that are not to be trusted: only regular ones are opened, and how much is read and built is known beforehand.

A parsed JSON text can take thirty times its own size, a decompressed file a thousand times; so the parts of a text are
counted before it is parsed, and what is compressed is read in pieces up to a limit.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import tomllib
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from treegym.errors import DataError

__all__ = [
    "gzip_lines", "json_of", "open_regular", "read_bytes", "read_json", "read_json_lines", "read_text", "toml_of",
]  # fmt: skip

TEXT_LIMIT = 2**24  # bytes of a JSON or TOML file, where nothing else is known
VALUES = 2**18  # values in a JSON text, where nothing else is known; a quarter as many containers
LINE_LIMIT = 10_000_000  # characters of one JSON line
KEY_PARTS = 64  # of a TOML key such as a.b.c: tomllib takes the square of their number in time
PIECE = 2**16  # bytes read at a time
GZIP_LINE = 2**20  # bytes of one line in a gzipped text
_LONG_KEY = re.compile(rf"(?<![\w\"'.-])(?:[\w\"'-]+[ \t]*\.[ \t]*){{{KEY_PARTS}}}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_HUGE = re.compile(rb"[eE]\+?0*[1-9]\d\d|\d{200}")  # what a float may be too small for


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file for reading; DataError for one that is missing, or that a reader could wait on for ever."""
    name = os.fspath(path)
    try:
        handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the name
        raise DataError(f"{name!r} is not the name of a file: {error}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DataError(f"{name}: not a regular file (a folder, a device or a pipe); name a file")
    return os.fdopen(handle, "rb")


def read_bytes(path: str | os.PathLike[str], *, limit: int = TEXT_LIMIT) -> bytes:
    """Returns the content of a regular file of at most `limit` bytes."""
    with open_regular(path) as file:
        raw = _read(file, path, limit + 1)
    if len(raw) > limit:
        raise DataError(f"{os.fspath(path)}: longer than the {limit:,} bytes that such a file may have")
    return raw


def read_text(path: str | os.PathLike[str], *, limit: int = TEXT_LIMIT) -> str:
    """Returns the UTF-8 text in a regular file of at most `limit` bytes."""
    return _text(read_bytes(path, limit=limit), os.fspath(path))


def read_json(path: str | os.PathLike[str], *, limit: int = TEXT_LIMIT, values: int = VALUES) -> Any:
    """Returns the JSON value in a file; NaN and infinity are none."""
    return json_of(read_bytes(path, limit=limit), where=os.fspath(path), values=values)


def json_of(raw: bytes, *, where: str, values: int = VALUES, containers: int | None = None) -> Any:
    """Returns the JSON value in `raw`, which may have so many values (commas) and containers (a quarter as many).

    Raises DataError, beginning with `where`, for anything else: nesting that is too deep, numbers that are too long,
    NaN, and half surrogate pairs, which no file or terminal could take.
    """
    most = values // 4 + 16 if containers is None else containers
    if raw.count(b",") > values or raw.count(b"[") + raw.count(b"{") > most:
        raise DataError(f"{where}: not valid JSON here: it has more than {values:,} values or {most:,} lists")
    try:
        more: Any = {"parse_float": _finite} if _HUGE.search(raw) else {}  # only then, as it makes reading slow
        value = json.loads(_text(raw, where), parse_constant=_refuse, **more)
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: not valid JSON: it holds half of a surrogate pair") from error
    except RecursionError as error:
        raise DataError(f"{where}: not valid JSON: it is nested too deeply") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: not valid JSON: {error}") from error
    return value


def toml_of(text: str, *, where: str) -> dict[str, Any]:
    """Returns the TOML table in a text; DataError, beginning with `where`, for anything else."""
    if _LONG_KEY.search(text):
        raise DataError(f"{where}: not valid TOML here: it has a key of more than {KEY_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise DataError(f"{where}: not valid TOML: it is nested too deeply") from error
    except ValueError as error:  # a number of too many digits among them
        raise DataError(f"{where}: not valid TOML: {error}") from error


def read_json_lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
    """Yields what stands on each line that is not blank, after its place (``FILE, line 3``) for messages.

    Raises DataError for a file that cannot be read and for the first line that is not JSON; NaN and infinity are none.
    """
    name = os.fspath(path)
    with open_regular(name) as file:
        number = 0
        while line := _line(file, name):
            number += 1
            where = f"{name}, line {number}"
            if len(line) > LINE_LIMIT:
                raise DataError(f"{where}: longer than {LINE_LIMIT} characters")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield where, json_of(line, where=where)


def gzip_lines(path: str | os.PathLike[str], *, limit: int) -> Iterator[bytes]:
    """Yields the lines of a gzipped text of at most `limit` bytes, without their ends."""
    name = os.fspath(path)
    unpacker, rest, total = zlib.decompressobj(wbits=31), b"", 0
    try:
        with open_regular(path) as file:
            while piece := _read(file, path, PIECE):
                while piece:
                    if unpacker.eof:  # several members may follow each other
                        unpacker = zlib.decompressobj(wbits=31)
                    text = unpacker.decompress(piece, PIECE)
                    piece = unpacker.unconsumed_tail or unpacker.unused_data
                    total += len(text)
                    if total > limit:
                        raise DataError(f"{name}: unpacks to more than {limit:,} bytes, more than it can hold")
                    *lines, rest = (rest + text).split(b"\n")
                    if len(rest) > GZIP_LINE:
                        raise DataError(f"{name}: a line is longer than {GZIP_LINE:,} bytes; the file is damaged")
                    yield from lines
        if not unpacker.eof:
            raise DataError(f"{name}: its end is missing; the file is damaged")
    except zlib.error as error:
        raise DataError(f"{name}: not a sound gzip file: {error}") from error
    if rest:
        yield rest


def _line(file: BinaryIO, name: str) -> bytes:
    try:
        return file.readline(LINE_LIMIT + 1)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error


def _read(file: io.BufferedIOBase | BinaryIO, path: str | os.PathLike[str], count: int) -> bytes:
    try:
        return file.read(count)
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:
        raise ValueError(f"{text[:20]} is beyond every number")
    return number


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
