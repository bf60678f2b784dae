"""The work directory of a growth: shards written whole or not at all, so that a kill at any moment costs one shard.

OUT.growing/plan.json            what is grown: settings, models, prompts; a resumed run must ask for the same
OUT.growing/basis.safetensors    the context basis, fitted once
OUT.growing/shard-00000.tree     finished shards, in the order of the prompts
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from treegym.envs.token_tree.grow.basis import ContextBasis
from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write, read_arrays, write_arrays
from treegym.tree.joining import join
from treegym.tree.token_tree import Root, TokenTree
from treegym.untrusted import read_json

__all__ = ["WorkDirectory", "digest_of"]


def digest_of(roots: Sequence[Root]) -> str:
    """Returns a hash of prompts, answers, splits and kinds, in order."""
    rows = [[root.prompt, root.answer, root.split, root.kind, dict(root.extra)] for root in roots]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


class WorkDirectory:
    """What has been grown so far, on disk."""

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        """Opens or makes the directory; raises ConfigError if it holds the beginning of a different growth."""
        self.path = path
        text = json.dumps(plan, indent=1, sort_keys=True) + "\n"
        file = path / "plan.json"
        if file.is_file():
            self._check_plan(file, json.loads(text))
        else:
            if path.exists() and any(entry for entry in path.iterdir() if not entry.name.startswith(".plan.json")):
                raise ConfigError(f"{path} exists and holds no growth; choose another --work directory")
            self._writing(lambda: path.mkdir(parents=True, exist_ok=True))
            self._writing(lambda: atomic_write(file, text))

    def _check_plan(self, file: Path, wanted: dict[str, Any]) -> None:
        try:
            found = read_json(file)
            if not isinstance(found, dict):
                raise DataError("not a JSON object")
        except DataError as error:
            raise DataError(f"{file}: cannot be read ({error}); remove {self.path} to start anew") from error
        different = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        if different:
            raise ConfigError(
                f"{self.path} holds a growth begun with different {', '.join(different)}; finish it with the same "
                "settings, or remove it, or choose another --work directory"
            )

    def shard(self, number: int) -> Path:
        return self.path / f"shard-{number:05d}.tree"

    def has(self, number: int) -> bool:
        return self.shard(number).is_file()

    def save_shard(self, number: int, tree: TokenTree) -> None:
        self._writing(lambda: tree.save(self.shard(number)))

    def basis(self, fit: Callable[[], ContextBasis]) -> ContextBasis:
        """Returns the stored basis, fitted and stored first if need be."""
        file = self.path / "basis.safetensors"
        if not file.is_file():
            basis = fit()
            self._writing(lambda: write_arrays(file, basis.to_arrays()))
        arrays, _ = read_arrays(file, mmap=False)
        return ContextBasis.from_arrays(arrays)

    def merge(self, shards: int, header: Mapping[str, Any]) -> TokenTree:
        """Returns all shards as one tree whose columns are files: what is in memory is one shard at a time."""
        trees = [TokenTree.open(self.shard(number)) for number in range(shards)]
        for number, tree in enumerate(trees):
            self._check_shard(number, tree, trees[0])
        joined: TokenTree = self._writing(lambda: join(trees, self.path, header))
        return joined

    def _check_shard(self, number: int, tree: TokenTree, first: TokenTree) -> None:
        forms = [{n: (t.column(n).dtype, t.column(n).shape[1:]) for n in t.column_names} for t in (tree, first)]
        if forms[0] != forms[1]:
            raise DataError(f"{self.shard(number)}: has other columns than the first shard; remove it to grow it again")

    def save(self, tree: TokenTree, out: Path) -> None:
        self._writing(lambda: tree.save(out))

    def remove(self) -> None:
        """Removes the directory: the finished tree holds everything."""
        shutil.rmtree(self.path)

    def _writing(self, write: Callable[[], Any]) -> Any:
        """Runs a write; a disk that is full or gone becomes a sentence that says what is kept."""
        try:
            return write()
        except OSError as error:
            done = len(list(self.path.glob("shard-*.tree"))) if self.path.is_dir() else 0
            raise DataError(
                f"growing stopped: writing to {self.path.parent} failed ({error.strerror or error}); the {done} shards "
                f"grown so far are kept in {self.path}: make room and run the same command again"
            ) from error
