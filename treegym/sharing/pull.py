"""Brings what somebody shared onto this machine, checked, and whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from treegym.errors import ConfigError, DataError, StorageError
from treegym.files import told_by
from treegym.folders import put_folder
from treegym.hub import Shared, fetch
from treegym.sharing.kinds import KINDS

__all__ = ["place_of", "pull"]


def place_of(shared: Shared, out: Path) -> Path:
    """Returns where a pull would put it: one file under its own name, a run as a folder named as the repository."""
    one = next(iter(shared.files)) if len(shared.files) == 1 else None
    return out / (one if one is not None and "/" not in one else shared.name.repo.partition("/")[2])


def pull(shared: Shared, out: Path, *, overwrite: bool = False) -> Path:
    """Fetches, checks and places what is shared; returns where it lies. Nothing of it is executed."""
    place = place_of(shared, out)
    if place.exists() and not overwrite:
        raise ConfigError(f"{place} exists already; choose another --out, or add --overwrite")
    _room(out, shared.size)
    found = fetch(shared)
    out.mkdir(parents=True, exist_ok=True)
    with told_by(place), tempfile.TemporaryDirectory(prefix=".pull.", suffix=".tmp", dir=out) as staging:
        whole = Path(staging) / place.name
        for file, cached in found.items():
            target = whole if place.name == file else whole / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cached, target)
        kind = KINDS[shared.kind]
        if not kind.looks_like(whole):
            raise DataError(f"{shared.name} calls itself a {kind.noun}, and its files are none")
        kind.examine(whole)
        put_folder(whole, place)
    return place


def _room(out: Path, size: int) -> None:
    """Refuses what does not fit before anything is fetched: once in the cache, once here."""
    there = next(path for path in (out, *out.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if 2 * size > free:
        raise StorageError(f"{out}: {2 * size:,} bytes are needed and {free:,} are free")
