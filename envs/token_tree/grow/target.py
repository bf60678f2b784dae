"""Where a finished tree goes: a file here, or a URL to which the file is sent once it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from treegym import remote
from treegym.envs.token_tree.grow.work import WorkDirectory
from treegym.errors import ConfigError
from treegym.tree.token_tree import TokenTree

__all__ = ["Target"]


class Target:
    """The place of a tree that is to be grown; raises ConfigError if nothing could be put there."""

    def __init__(self, out: str | os.PathLike[str], work: str | os.PathLike[str] | None, *, overwrite: bool) -> None:
        self.url = out if isinstance(out, str) and remote.is_url(out) else None
        place = Path(remote.file_name(self.url)) if self.url else Path(out)
        self.work = Path(work) if work is not None else place.with_name(place.name + ".growing")
        self.file = self.work / "finished.tree" if self.url else place
        if not self.url and place.is_dir():
            raise ConfigError(f"{place} is a directory; name the file to write")
        if self.url:
            remote.check_place(self.url)
        elif not place.parent.is_dir():
            raise ConfigError(f"{place.parent} is no directory; make it first")
        begun = overwrite or (self.work / "plan.json").is_file()
        if not begun and (remote.size_of(self.url) is not None if self.url else place.exists()):
            raise ConfigError(f"{out} exists already; choose another name, or ask to overwrite it")

    def finished(self, store: WorkDirectory, merge: Callable[[], TokenTree]) -> TokenTree:
        """Puts the merged tree there and returns it, opened."""
        if not (self.url and self.file.is_file()):  # else it was whole when sending it failed
            store.save(merge(), self.file)
        if self.url:
            remote.put(self.file, self.url, kept=f"what was grown is kept in {self.work}: give the same command again")
        return TokenTree.open(self.file)
