"""`.tree` files: a safetensors file of columns, a table of roots, and a JSON header; opened as a memory map."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np

from treegym.errors import ConfigError, DataError
from treegym.files import read_arrays, write_arrays
from treegym.tree.arena import Arena, Root
from treegym.tree.columns import COLUMNS, OPTIONAL, column_shape

__all__ = ["FORMAT_VERSION", "open_tree", "save_tree"]

FORMAT = "treegym.tree"
FORMAT_VERSION = 1
VOCABULARY_LIMIT = 2**22

_Tree = TypeVar("_Tree", bound=Arena)


class RootTable(Sequence[Root]):
    """The roots in a file, parsed when first asked for: opening a tree of many prompts stays instant."""

    def __init__(self, path: str, text: np.ndarray, count: int) -> None:
        self._path, self._text, self._count = path, text, count
        self._roots: list[Root] | None = None

    def _parsed(self) -> list[Root]:
        if self._roots is None:
            try:
                entries = json.loads(self._text.tobytes())
                self._roots = [_root(entry) for entry in entries]
            except (ValueError, TypeError, KeyError, RecursionError, ConfigError) as error:
                raise DataError(f"{self._path}: its table of roots is damaged: {error}") from error
            if len(self._roots) != self._count:
                raise DataError(f"{self._path}: {len(self._roots)} roots are described, but {self._count} are there")
        return self._roots

    def __len__(self) -> int:
        return self._count if self._roots is None else len(self._parsed())

    def __iter__(self) -> Iterator[Root]:
        return iter(self._parsed())

    @overload
    def __getitem__(self, index: int) -> Root: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Root]: ...
    def __getitem__(self, index: int | slice) -> Root | Sequence[Root]:
        return self._parsed()[index]


def _root(entry: Any) -> Root:
    prompt, answer, split, kind = entry["prompt"], entry["answer"], entry["split"], entry["kind"]
    if not all(isinstance(text, str) for text in (prompt, answer, split, kind)):
        raise ValueError("a root's prompt, answer, split or kind is not a string")
    tokens = tuple(entry["tokens"])
    if not all(type(token) is int for token in tokens) or not isinstance(entry.get("extra", {}), dict):
        raise ValueError("a root's tokens or extra fields are not what they should be")
    return Root(prompt, answer, split, kind, tokens=tokens, extra=entry.get("extra", {}))


def save_tree(tree: Arena, path: str | os.PathLike[str]) -> None:
    """Writes a tree atomically; the same tree always gives the same bytes."""
    entries = [
        {
            "prompt": root.prompt,
            "answer": root.answer,
            "split": root.split,
            "kind": root.kind,
            "tokens": [int(token) for token in root.tokens],
            **({"extra": dict(root.extra)} if root.extra else {}),
        }
        for root in tree.roots
    ]
    table = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
    arrays = {name: tree.column(name) for name in tree.column_names}
    arrays["root_node"] = tree.root_node
    arrays["roots"] = np.frombuffer(table, np.uint8)
    header = json.dumps(tree.header, separators=(",", ":"), sort_keys=True, ensure_ascii=True)
    write_arrays(path, arrays, {"format": FORMAT, "version": str(FORMAT_VERSION), "tree": header})


def open_tree(path: str | os.PathLike[str], kind: type[_Tree]) -> _Tree:
    """Opens a `.tree` file as a `kind`, its columns unread; what was opened is checked in full by `validate()`."""
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise DataError(f"{name}: no such tree file; `treegym grow --out {name}` would make one")
    arrays, metadata = read_arrays(name)
    if metadata.get("format") != FORMAT:
        raise DataError(f"{name}: not a tree file (its format is {metadata.get('format', 'unknown')!r})")
    version = metadata.get("version", "")
    if not version.isdecimal() or len(version) > 6 or int(version) < 1:
        raise DataError(f"{name}: its format version {version[:20]!r} is not a number; the file is damaged")
    if int(version) > FORMAT_VERSION:
        raise DataError(f"{name}: format version {version}; this TreeGym reads up to {FORMAT_VERSION}: please upgrade")
    header = _checked_header(name, metadata.get("tree", ""))
    root_node, table = arrays.pop("root_node", None), arrays.pop("roots", None)
    if root_node is None or table is None or root_node.dtype != np.int32 or root_node.ndim != 1:
        raise DataError(f"{name}: its table of roots is missing or of a wrong type")
    if table.dtype != np.uint8 or table.ndim != 1:
        raise DataError(f"{name}: its table of roots is not text")
    size = _checked_columns(name, arrays, len(header["teachers"]))
    # JSON needs at least 50 bytes a root; a table of roots that claims more is a lie about to cost memory.
    if len(root_node) > size or len(root_node) * 50 > max(len(table), 1) + 100:
        raise DataError(f"{name}: it claims {len(root_node)} roots in {size} nodes and {len(table)} bytes of table")
    return kind(arrays, header=header, root_node=root_node, roots=RootTable(name, table, len(root_node)), size=size)


def _checked_header(name: str, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: its tree header is not valid JSON; the file is damaged") from error
    sound = (
        isinstance(header, dict)
        and isinstance(header.get("tokens"), list)
        and 0 < len(header["tokens"]) <= VOCABULARY_LIMIT
        and all(isinstance(piece, str) and all(ord(c) < 256 for c in piece) for piece in header["tokens"])
        and type(header.get("eos_id")) is int
        and 0 <= header["eos_id"] < len(header["tokens"])
        and isinstance(header.get("teachers"), list)
        and len(header["teachers"]) <= 31
        and all(isinstance(teacher, str) for teacher in header["teachers"])
    )
    if not sound:
        raise DataError(f"{name}: its header lacks a sound vocabulary, eos_id or list of teachers")
    return header


def _checked_columns(name: str, arrays: dict[str, np.ndarray], teachers: int) -> int:
    missing = [column for column in COLUMNS if column not in OPTIONAL and column not in arrays]
    if missing:
        raise DataError(f"{name}: columns are missing: {', '.join(missing)}")
    size = len(arrays["token"]) if arrays["token"].ndim else 0
    for column, array in arrays.items():
        if column not in COLUMNS:
            raise DataError(f"{name}: unknown column {column[:60]!r}")
        expected = column_shape(column, size, teachers)
        if array.dtype != COLUMNS[column].dtype or array.shape != expected:
            raise DataError(
                f"{name}: column {column!r} is {array.dtype} {array.shape}; expected {COLUMNS[column].dtype} {expected}"
            )
    return size
