"""Trees of equal columns joined into one whose columns are files: what is in memory is one tree at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.tree.token_tree import NODE_LIMIT, TokenTree

__all__ = ["join"]

LINKS = ("parent", "first_child")  # columns that hold node ids


def join(trees: Sequence[TokenTree], folder: Path, header: Mapping[str, Any] | None = None) -> TokenTree:
    """Returns all trees as one, its columns mapped from files in `folder`, which must outlive it.

    Args:
        trees: trees with the same columns, vocabulary and teachers.
        folder: where the files of the columns are made.
        header: goes before the first tree's.
    """
    size = sum(tree.size for tree in trees)
    if size > NODE_LIMIT:
        raise ConfigError(
            f"{size:,} nodes are too many for one tree, which holds {NODE_LIMIT:,}; keep them as a forest"
        )
    arrays: dict[str, np.ndarray] = {}
    for name in trees[0].column_names:
        first = trees[0].column(name)
        merged = _mapped(folder / f"column-{name}.bin", first.dtype, (size, *first.shape[1:]))
        start = 0
        for tree in trees:
            part = tree.column(name)
            if name in LINKS:
                part = np.where(part >= 0, part + np.int32(start), part)
            merged[start : start + tree.size] = part
            start += tree.size
        arrays[name] = merged
    starts = np.cumsum([0, *(tree.size for tree in trees[:-1])])
    root_node = np.concatenate([tree.root_node + start for tree, start in zip(trees, starts, strict=True)])
    roots = [root for tree in trees for root in tree.roots]
    full = {**trees[0].header, **(header or {})}
    return TokenTree(arrays, header=full, root_node=root_node.astype(np.int32), roots=roots, size=size)


def _mapped(file: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if not int(np.prod(shape)):
        return np.empty(shape, dtype)
    _reserve(file, int(np.prod(shape)) * dtype.itemsize)
    return np.asarray(np.memmap(file, dtype=dtype, mode="r+", shape=shape))


def _reserve(file: Path, size: int) -> None:
    """Makes a file with all its room on disk: a full disk kills whoever writes to the map of a file with holes."""
    with open(file, "wb") as handle:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), 0, size)
        else:
            handle.truncate(size)
