"""`.tree` files: a safetensors file of columns, a table of roots, and a JSON header; opened as a memory map."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from treegym.errors import DataError
from treegym.files import read_arrays, write_arrays
from treegym.tree.columns import COLUMNS, OPTIONAL, column_shape
from treegym.tree.roots import Root, RootTable, table_of
from treegym.untrusted import json_of

__all__ = ["FORMAT_VERSION", "TreeParts", "read_tree", "write_tree"]

FORMAT = "treegym.tree"
FORMAT_VERSION = 2  # of trees with pictures; all others are written as version 1, which older readers know
VOCABULARY_LIMIT = 2**20  # tokens; four times the largest vocabulary known
HEADER_VALUES = 2 * VOCABULARY_LIMIT  # commas and brackets, those in tokens among them


class TreeParts(TypedDict):
    """What a tree is made of."""

    arrays: dict[str, np.ndarray]
    header: dict[str, Any]
    root_node: np.ndarray
    roots: Sequence[Root]
    size: int


def write_tree(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    header: Mapping[str, Any],
    root_node: np.ndarray,
    roots: Sequence[Root],
) -> None:
    """Writes a tree atomically; the same tree always gives the same bytes."""
    table = np.frombuffer(table_of(roots), np.uint8)
    text = json.dumps(header, separators=(",", ":"), sort_keys=True, ensure_ascii=True)
    metadata = {"format": FORMAT, "version": str(_version(roots)), "tree": text}
    write_arrays(path, {**arrays, "root_node": root_node, "roots": table}, metadata)


def _version(roots: Sequence[Root]) -> int:
    """Returns the first version of the format that can hold these roots."""
    return 2 if any(root.image for root in roots) else 1


def read_tree(path: str | os.PathLike[str]) -> TreeParts:
    """Returns what a `.tree` file holds, its columns mapped and unread; `validate()` checks them in full."""
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise DataError(f"{name}: no such tree file; `treegym grow --out {name}` would make one")
    arrays, metadata = read_arrays(name, values=HEADER_VALUES)
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
    size = _checked_columns(name, arrays, len(header["teachers"]), len(header.get("samplers", ())))
    # JSON needs at least 50 bytes per root; a table of roots that claims more is a lie about to cost memory.
    if len(root_node) > size or len(root_node) * 50 > max(len(table), 1) + 100:
        raise DataError(f"{name}: it claims {len(root_node)} roots in {size} nodes and {len(table)} bytes of table")
    roots = RootTable(name, table, len(root_node))
    return {"arrays": arrays, "header": header, "root_node": root_node, "roots": roots, "size": size}


def _checked_header(name: str, text: str) -> dict[str, Any]:
    header = json_of(text.encode("utf-8", "replace"), where=f"{name}: its tree header", values=HEADER_VALUES)
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
        and isinstance(header.get("samplers", []), list)
        and all(isinstance(sampler, dict) for sampler in header.get("samplers", []))
    )
    if not sound:
        raise DataError(f"{name}: its header lacks a sound vocabulary, eos_id, list of teachers or of samplers")
    return header


def _checked_columns(name: str, arrays: dict[str, np.ndarray], teachers: int, samplers: int) -> int:
    missing = [column for column in COLUMNS if column not in OPTIONAL and column not in arrays]
    if missing:
        raise DataError(f"{name}: columns are missing: {', '.join(missing)}")
    size = len(arrays["token"]) if arrays["token"].ndim else 0
    for column, array in arrays.items():
        if column not in COLUMNS:
            raise DataError(f"{name}: unknown column {column[:60]!r}")
        expected = column_shape(column, size, teachers, samplers)
        if array.dtype != COLUMNS[column].dtype or array.shape != expected:
            raise DataError(
                f"{name}: column {column!r} is {array.dtype} {array.shape}; expected {COLUMNS[column].dtype} {expected}"
            )
    return size
