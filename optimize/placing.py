"""Several files put in place as one: whatever kills the process, what stands there is all of the old or all of the new.

The new files lie in a folder beside the old, `READY`, before the first of them is moved. The rename of one file, the
`first`, decides: while it lies in `READY` the old files stand, all of them; once it is gone from there the new ones
are to stand, and whoever looks next moves the rest.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from treegym.errors import DataError

__all__ = ["READY", "finish", "put_in_place"]

READY = ".ready.tmp"


def put_in_place(staging: Path, folder: Path, *, first: str) -> list[Path]:
    """Moves all files of `staging`, which lies in `folder`, into `folder`, or none; returns where they are now."""
    names = sorted((path.name for path in staging.iterdir() if path.is_file()), key=lambda name: (name != first, name))
    before = staging / "before"
    before.mkdir()
    for name in names:
        if (folder / name).exists():
            _keep(folder / name, before / name)
    ready = folder / READY
    if ready.exists():  # of a run that was killed before anything of it stood
        shutil.rmtree(ready)
    os.replace(staging, ready)
    try:
        for name in names:
            _move(ready / name, folder / name)
    except OSError:
        for name in reversed(names):
            old = ready / "before" / name
            if old.exists():
                os.replace(old, folder / name)
            elif not (ready / name).exists():
                (folder / name).unlink(missing_ok=True)  # new, where nothing was
        shutil.rmtree(ready)
        raise
    shutil.rmtree(ready, ignore_errors=True)  # nothing in it is needed; whoever comes next removes what is left
    return [folder / name for name in names]


def finish(folder: Path, *, first: str) -> None:
    """Ends what a killed process began: if its `first` file is in place, the others follow.

    Raises:
        DataError: the files are to be moved and cannot be.
    """
    ready = folder / READY
    if not ready.is_dir() or (ready / first).exists():
        return  # nothing was begun, or all of the old still stands
    try:
        for path in sorted(ready.iterdir()):
            if path.is_file():
                _move(path, folder / path.name)
    except OSError as error:
        raise DataError(
            f"{folder}: the run that wrote there was killed before all its files were in place, and {READY} in it "
            f"cannot be moved to them ({error.strerror}); make the folder writable, or move the files by hand"
        ) from error
    shutil.rmtree(ready, ignore_errors=True)


def _move(path: Path, to: Path) -> None:
    try:
        os.replace(path, to)
    except FileNotFoundError:
        if not to.exists():  # else another process moved it, which looked while this one was at work
            raise


def _keep(path: Path, kept: Path) -> None:
    try:
        os.link(path, kept)
    except OSError:  # a file system without links
        shutil.copyfile(path, kept)
