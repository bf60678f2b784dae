"""A forest: a folder of `.tree` files with one manifest, used as one tree whose parts are opened when they are needed.

::

    forest/
        forest.json             what is in each file: nodes, prompts of each split; a hash of what all have in common
        part-00000.tree ...     trees of one vocabulary, with the same teachers and columns

Opening reads the manifest alone. Nodes and roots are numbered through, file after file; at most `open_trees` files are
mapped at a time. Every file is checked in full when it is opened. The folder may be at a URL that ends in a slash, such
as ``s3://bucket/forest/``: its files are fetched into the cache when they are needed (`treegym.remote`).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from treegym import remote
from treegym.checks import whole
from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write, told_by
from treegym.shape import misfit
from treegym.tree.editing import statistics
from treegym.tree.joining import join
from treegym.tree.roots import SPLITS, Root
from treegym.tree.token_tree import TokenTree
from treegym.tree.values import Values
from treegym.untrusted import read_json

__all__ = ["MANIFEST", "Forest", "is_forest"]

MANIFEST = "forest.json"
FORMAT, VERSION = "treegym.forest", 1
OPEN_TREES = 8
_PART: Any = {"file": str, "nodes": int, "roots": int, "splits": dict.fromkeys(SPLITS, int)}
_SHAPE: Any = {"format": str, "version": int, "common": str, "parts": [_PART]}


def is_forest(name: Any) -> bool:
    """Whether this is a forest, or the name of a folder that holds one; a URL is a folder's if it ends in a slash."""
    if remote.is_url(name):
        return bool(name.endswith("/"))
    return isinstance(name, Forest) or (isinstance(name, str | os.PathLike) and (Path(name) / MANIFEST).is_file())


class Forest:
    """Many trees as one. Nodes and roots are numbered through; node ids are int64, for there may be many."""

    def __init__(self, path: str | Path, manifest: dict[str, Any], *, open_trees: int = OPEN_TREES) -> None:
        self.path, self.parts = path, manifest["parts"]
        self.common: str = manifest["common"]
        self.open_trees = whole("open_trees", open_trees, low=1)
        self.node_start = _starts([part["nodes"] for part in self.parts])  # [P + 1] int64
        self.root_start = _starts([part["roots"] for part in self.parts])  # [P + 1] int64
        self._open: OrderedDict[int, TokenTree] = OrderedDict()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, open_trees: int = OPEN_TREES) -> Self:
        """Returns the forest in a folder; no tree is opened yet."""
        file = _in_folder(path, MANIFEST)
        if not file.is_file():
            raise DataError(f"{path} holds no forest: it has no {MANIFEST} (`treegym tree gather {path}` writes one)")
        manifest = read_json(file, limit=2**28, values=2**24)
        if (fault := misfit(manifest, _SHAPE)) is not None or manifest["format"] != FORMAT:
            raise DataError(
                f"{file} is damaged: {(fault or '.format').lstrip('.')} is missing or not what it should be"
            )
        if manifest["version"] != VERSION:
            raise DataError(
                f"{file}: format version {manifest['version']}; this TreeGym reads {VERSION}: please upgrade"
            )
        names = [part["file"] for part in manifest["parts"]]
        counts = [n for part in manifest["parts"] for n in (part["nodes"], part["roots"], *part["splits"].values())]
        if not names or len({*names}) < len(names) or any(Path(n).name != n or not n.endswith(".tree") for n in names):
            raise DataError(
                f"{file} is damaged: it names no files, one twice, or one that is not a .tree file beside it"
            )
        if min(counts) < 0 or max(counts) >= 2**31 or sum(counts) >= 2**62:
            raise DataError(f"{file} is damaged: a tree has from 0 to {2**31 - 1} nodes")
        return cls(os.fspath(path), manifest, open_trees=open_trees)

    @classmethod
    def gather(cls, path: str | os.PathLike[str]) -> Self:
        """Makes one forest of the trees in a folder, in the order of their names; each is checked, one at a time."""
        files = sorted(Path(path).glob("*.tree"))
        if not files:
            raise DataError(f"{path} holds no .tree files to make a forest of")
        parts, common = [], ""
        for file in files:
            tree = TokenTree.open(file)
            tree.validate()
            found = _common(tree)
            if common not in ("", found):
                raise ConfigError(f"{file} has another vocabulary, other teachers or columns than {files[0].name}")
            common = found
            splits = {split: len(tree.roots_in(split)) for split in SPLITS}
            parts.append({"file": file.name, "nodes": tree.size, "roots": tree.num_roots, "splits": splits})
        manifest = {"format": FORMAT, "version": VERSION, "common": common, "parts": parts}
        atomic_write(Path(path) / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        return cls(os.fspath(path), manifest)

    # ---------------------------------------------------------------- parts

    def tree(self, number: int) -> TokenTree:
        """Returns one of the trees, mapped and checked; those used last stay open."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        part = self.parts[number]
        file = _in_folder(self.path, part["file"])
        tree = TokenTree.open(file)
        if (tree.size, tree.num_roots) != (part["nodes"], part["roots"]) or _common(tree) != self.common:
            raise DataError(f"{file} is another tree than {MANIFEST} says; write that anew with `treegym tree gather`")
        try:
            tree.validate()
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        while len(self._open) >= self.open_trees:
            self._open.popitem(last=False)
        self._open[number] = tree
        return tree

    def trees(self) -> Iterator[TokenTree]:
        """Yields every tree, one after another."""
        return (self.tree(number) for number in range(len(self.parts)))

    def of_node(self, node: int) -> tuple[TokenTree, int]:
        """Returns the tree that a node is in, and its number there."""
        number, own = _place(self.node_start, node, "node")
        return self.tree(number), own

    # ---------------------------------------------------------------- as one tree

    @property
    def size(self) -> int:
        return int(self.node_start[-1])

    @property
    def num_roots(self) -> int:
        return int(self.root_start[-1])

    def count_in(self, split: str) -> np.ndarray:
        """Returns how many roots of a split each tree has ``[P] int64``; "all" is every root."""
        if split != "all" and split not in SPLITS:
            raise ConfigError(f"split is {split!r}; it must be one of {', '.join(SPLITS)} or all")
        return np.array([p["roots"] if split == "all" else p["splits"][split] for p in self.parts], np.int64)

    def root(self, index: int) -> Root:
        number, own = _place(self.root_start, index, "root")
        return self.tree(number).roots[own]

    def children(self, node: int) -> np.ndarray:
        tree, own = self.of_node(node)
        return tree.children(own) + (node - own)

    def text(self, node: int) -> str:
        tree, own = self.of_node(node)
        return tree.text(own)

    def validate(self) -> None:
        """Checks every tree, one at a time."""
        for _ in self.trees():
            pass

    @property
    def is_closed(self) -> bool:
        """Whether every path of every tree ends in a real terminal."""
        return all(tree.is_closed for tree in self.trees())

    def values(self, policy: str = "primary", **options: Any) -> Iterator[Values]:
        """Yields the values under a policy, tree by tree; see `treegym.tree.values`."""
        return (tree.values(policy, **options) for tree in self.trees())

    def statistics(self) -> dict[str, Any]:
        """Returns what `treegym.tree.editing.statistics` would of one tree; one is looked at at a time."""
        return _summed([statistics(tree) for tree in self.trees()])

    def save(self, out: str | os.PathLike[str]) -> None:
        """Writes all as one `.tree` file; what is in memory is one tree at a time, and the table of all prompts."""
        trees = [
            TokenTree.open(_in_folder(self.path, part["file"])) for part in self.parts
        ]  # maps, which cost no memory
        with told_by(out), tempfile.TemporaryDirectory(prefix=".join.", dir=Path(out).absolute().parent) as folder:
            join(trees, Path(folder)).save(out)

    def __repr__(self) -> str:
        return f"Forest({len(self.parts):,} trees, {self.num_roots:,} roots, {self.size:,} nodes)"


def _in_folder(folder: str | os.PathLike[str], name: str) -> Path:
    """Returns a file of a folder, which is fetched if the folder is at a URL."""
    return remote.fetched(f"{folder}{name}") if remote.is_url(folder) else Path(folder) / name


def _starts(counts: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(counts, np.int64))])


def _place(starts: np.ndarray, index: int, what: str) -> tuple[int, int]:
    if not 0 <= index < starts[-1]:
        raise ConfigError(f"{what} {index} is out of range; the forest has {what}s 0 to {starts[-1] - 1}")
    number = int(np.searchsorted(starts, index, side="right")) - 1
    return number, index - int(starts[number])


def _common(tree: TokenTree) -> str:
    """Returns a hash of what trees must have in common to be one."""
    header = tree.header
    parts = [
        header["tokens"],
        header["eos_id"],
        header["teachers"],
        header.get("samplers", []),
        sorted(tree.column_names),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _summed(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the statistics of trees as those of one: means are weighted by what they are means of."""

    def mean(name: str, weights: Sequence[float]) -> float:
        return sum(f[name] * w for f, w in zip(found, weights, strict=True)) / max(sum(weights), 1)

    total = {name: sum(f[name] for f in found) for name in ("roots", "nodes", "leaves", "correct_leaves")}
    roots, leaves, correct = ([f[name] for f in found] for name in ("roots", "leaves", "correct_leaves"))
    below = [f["nodes"] - f["roots"] for f in found]
    expanded = [b / f["branching"] if f["branching"] else 0 for b, f in zip(below, found, strict=True)]
    reached = [f["reachable_roots"] * f["roots"] for f in found]
    return {
        "roots": total["roots"],
        "splits": {split: sum(f["splits"][split] for f in found) for split in SPLITS},
        "nodes": total["nodes"],
        "nodes_per_root": total["nodes"] / max(total["roots"], 1),
        "closed": all(f["closed"] for f in found),
        "leaves": total["leaves"],
        "correct_leaves": total["correct_leaves"],
        "reachable_roots": mean("reachable_roots", roots),
        "max_depth": max(f["max_depth"] for f in found),
        "mean_leaf_depth": mean("mean_leaf_depth", leaves),
        "branching": mean("branching", expanded),
        "max_children": max(f["max_children"] for f in found),
        "mean_correct_length": mean("mean_correct_length", correct),
        "mean_shortest_correct_length": mean("mean_shortest_correct_length", reached),
        "proposed_by": {
            name: sum(f["proposed_by"][name] * b for f, b in zip(found, below, strict=True)) / max(sum(below), 1)
            for name in found[0]["proposed_by"]
        },
    }  # fmt: skip
